-- container-healthcheck 2.1.0: what this gateway believes, as JSON. Runs in the content phase.

local choice = require("container_healthcheck.choice")
local log = require("container_healthcheck.log")
local store = require("container_healthcheck.store")

local has_cjson, cjson = pcall(require, "cjson.safe")

local ngx, ipairs, floor = ngx, ipairs, math.floor

local _M = { version = "2.1.0" }

local function seen_servers()
    local servers, seen = {}, {}
    for number = 1, store.max_servers do
        local address = store.placed(number)
        if address and not seen[address] then
            seen[address] = true
            servers[#servers + 1] = address
        end
    end
    table.sort(servers)
    return servers
end

local function server_status(address)
    local state, heard = store.state(address), store.heard(address)
    local fault = state and state > 0 and state or nil
    return {
        server = address,
        state = state == nil and choice.unknown or fault and choice.down or "known",
        code = fault,
        reason = store.error(address) or (fault and log.reasons[fault]),
        heard_seconds_ago = heard and floor((ngx.now() - heard) * 1000 + 0.5) / 1000,
        watched_by = store.watcher(address),
        apps = {},
    }
end

local function add_apps(by_address)
    store.each_code(function(address, app, code)
        local entry = by_address[address]
        if entry then
            entry.apps[app] = {
                state = choice.state_of(store.state(address), code),
                code = code,
                reason = log.reasons[code],
                failed_just_now = store.has_failed(address, app) or nil,
            }
        end
    end)
end

function _M.answer()
    ngx.header["Content-Type"] = "application/json"
    ngx.header["Cache-Control"] = "no-store"
    if not has_cjson then
        return ngx.say('{"error":"the Lua library cjson is missing"}')
    end
    local servers, by_address = {}, {}
    for index, address in ipairs(store.is_there and seen_servers() or {}) do
        servers[index] = server_status(address)
        by_address[address] = servers[index]
    end
    if store.is_there then
        add_apps(by_address)
    end
    for index, server in ipairs(servers) do
        servers[index] = cjson.encode(server)
    end
    -- By hand: an empty Lua table would become an object.
    ngx.say('{"shared_dictionary":', tostring(store.is_there), ',"servers":[',
        table.concat(servers, ","), "]}")
end

return _M
