-- container-healthcheck 2.1.0: what the answer of a service says. Pure; runs in timers.

local servers = require("container_healthcheck.servers")
local log = require("container_healthcheck.log")

local has_cjson, cjson = pcall(require, "cjson.safe")

local pairs, type, pcall = pairs, type, pcall

local MAX_APPS = 2000

local _M = { version = "2.1.0", max_apps = MAX_APPS }

local function is_code(value)
    return type(value) == "number" and value >= 0 and value <= 999999 and value % 1 == 0
end

-- The codes of all apps and whether some were too many, or nil when they are not codes.
local function codes_in(message)
    local codes, count = {}, 0
    for app, code in pairs(message) do
        if type(app) ~= "string" or not servers.is_name(app) or not is_code(code) then
            return nil
        end
        count = count + 1
        if count <= MAX_APPS then
            codes[app] = code
        end
    end
    return codes, count > MAX_APPS
end

local function decode(body)
    if not has_cjson then
        log.complain("cjson", "the Lua library cjson is missing: no verdict can be read")
        return nil
    end
    local ok, value = pcall(cjson.decode, body)
    return ok and type(value) == "table" and value or nil
end

-- A table with `codes` (and `cut` when some were left out), or with `fault`, the code of a service
-- that has no picture of its host; or nil and what is wrong with it.
function _M.understand(answer)
    local value = decode(answer.body)
    if not value or not is_code(value.code) then
        return nil, "status " .. answer.status .. ", and not a container-healthcheck's JSON"
    elseif answer.status == 503 and value.code > 0 then
        return { fault = value.code, text = log.printable(value.message) }
    elseif answer.status ~= 200 or value.code ~= 0 or type(value.message) ~= "table" then
        return nil, "status " .. answer.status .. ", code " .. value.code
    end
    local codes, cut = codes_in(value.message)
    if not codes then
        return nil, "a list of verdicts that is none"
    end
    return { codes = codes, cut = cut }
end

return _M
