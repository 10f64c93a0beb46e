-- container-healthcheck 2.1.0: the servers of an app, as the site's configuration names them.
-- Runs in the rewrite, balancer, log and content phases.

local counts = require("container_healthcheck.counts")
local log = require("container_healthcheck.log")
local store = require("container_healthcheck.store")

local has_upstreams, upstreams = pcall(require, "ngx.upstream")

local ipairs, type, tonumber, max = ipairs, type, tonumber, math.max

local MAX_LISTS = 2500 -- per worker: more than a server may have apps
local MAX_NAME = 128

local _M = { version = "2.1.0" }

-- By `$appo_servers`, "" when it is not set, and by app.
local lists, listed = {}, 0

function _M.is_name(name)
    return #name <= MAX_NAME and name:find("^[A-Za-z0-9][A-Za-z0-9_.-]*$") ~= nil
end

-- An app is what the configuration names, or what a server lists; the rest was made up by somebody.
function _M.is_app(list)
    if list.configured then
        return true
    end
    for _, server in ipairs(list.servers) do
        if store.code(server.address, list.app) then
            return true
        end
    end
    return false
end

local function server_of(address, weight, backup)
    local host, port = address:match("^(.+):(%d+)$")
    if address:sub(1, 5) == "unix:" then
        host, port = address, nil
    elseif not host then
        host, port = address, "80"
        address = address .. ":80"
    end
    return {
        address = address,
        host = host,
        port = port and tonumber(port),
        weight = weight,
        backup = backup,
    }
end

local function is_address(host, port)
    port = tonumber(port)
    if not port or port < 1 or port > 65535 then
        return false
    end
    local octets = { host:match("^(%d+)%.(%d+)%.(%d+)%.(%d+)$") }
    for _, octet in ipairs(octets) do
        if tonumber(octet) > 255 then
            return false
        end
    end
    return #octets == 4 or host:find("^%[[%x:.]+%]$") ~= nil
end

-- `$appo_servers`: addresses with ports, each with `*weight` behind it when it is not 1.
local function given_servers(text)
    local servers = {}
    for item in text:gmatch("[^%s,]+") do
        local host, port, weight = item:match("^(.+):(%d+)%*?(%d*)$")
        if host and is_address(host, port) then
            servers[#servers + 1] = server_of(host .. ":" .. port, max(tonumber(weight) or 1, 1))
        else
            log.complain("appo_servers",
                "$appo_servers: not an address and a port: " .. log.printable(item))
        end
    end
    return servers
end

-- nginx makes upstreams of its own for each proxy_pass to an address. They are no apps, and their
-- servers have no weight, which one that was written down always has.
local function upstream_servers(app)
    local servers = {}
    for _, each in ipairs(has_upstreams and upstreams.get_servers(app) or {}) do
        local weight = each.weight or 1
        local is_usable = weight > 0 and not each.down
        local addresses = type(each.addr) == "table" and each.addr or { each.addr }
        for _, address in ipairs(is_usable and addresses or {}) do
            servers[#servers + 1] = server_of(address, weight, each.backup)
        end
    end
    return servers
end

-- Which role each server of the app's upstream has there, by address; nil when it has no upstream.
function _M.roles(app)
    local roles
    for _, server in ipairs(upstream_servers(app)) do
        roles = roles or {}
        roles[server.address] = server.backup and "BACKUP" or "PRIMARY"
    end
    return roles
end

local function keep_list(given, app, servers, configured)
    if #servers == 0 then
        return nil
    end
    if listed >= MAX_LISTS then
        lists, listed = {}, 0
        counts.begin_anew()
    end
    local list = { app = app, servers = servers, configured = configured, made_at = 0 }
    list.tally = counts.tally_of(list)
    lists[given] = lists[given] or {}
    lists[given][app], listed = list, listed + 1
    return list
end

local function make_list(app, given)
    if given == "" then
        return keep_list(given, app, upstream_servers(app), true)
    end
    -- Names that are none share a list, and what is made up never becomes a key.
    local name = _M.is_name(app) and app or ""
    local kept = lists[given]
    return kept and kept[name] or keep_list(given, name, given_servers(given), false)
end

-- The list of an app, or nil when no server of it is known. Upstreams do not change while a worker
-- lives, so a list is made once.
function _M.of(app, given)
    given = given or ""
    local kept = lists[given]
    return kept and kept[app] or make_list(app, given)
end

return _M
