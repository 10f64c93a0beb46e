-- container-healthcheck 2.1.0: what this gateway believes, as JSON. Runs in the content phase.

local fleet = require("container_healthcheck.fleet")
local store = require("container_healthcheck.store")

local has_cjson, cjson = pcall(require, "cjson.safe")

local ngx, ipairs, pairs, floor, max = ngx, ipairs, pairs, math.floor, math.max

local _M = { version = "2.1.0" }

local function apps_of(server, wanted)
    local apps = {}
    for app, entry in pairs(server.apps) do
        if not wanted or app == wanted then
            apps[app] = {
                state = entry.state,
                code = entry.code,
                reason = entry.reason,
                failed_just_now = entry.failed or nil,
            }
        end
    end
    return apps
end

local function encoded(server, wanted)
    return cjson.encode({
        server = server.address,
        state = server.state,
        code = server.code,
        reason = server.reason,
        heard_seconds_ago = server.heard and floor(max(ngx.now() - server.heard, 0) * 1000 + 0.5) / 1000,
        watched_by = server.watched_by,
        apps = apps_of(server, wanted),
    })
end

-- `app` is the only one wanted, if any.
function _M.answer(app)
    ngx.header["Content-Type"] = "application/json"
    if not has_cjson then
        return ngx.say('{"error":"the Lua library cjson is missing"}')
    end
    local servers = {}
    for index, server in ipairs(fleet.servers()) do
        servers[index] = encoded(server, app)
    end
    -- By hand: an empty Lua table would become an object.
    ngx.say('{"shared_dictionary":', tostring(store.is_there), ',"servers":[',
        table.concat(servers, ","), "]}")
end

return _M
