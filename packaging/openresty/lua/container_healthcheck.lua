-- container-healthcheck 2.1.0: sends each user request to an APPO server on which the app serves.
-- Its functions say in which phase of nginx each runs.
--
-- One worker waits for news from each APPO server, in a timer; what it hears lies in a shared
-- dictionary; a user request only reads that. Nothing here may ever stop a request: whatever goes
-- wrong, the request takes the way it would take without this module.
--
-- Runs on lua-nginx-module 0.10.15 and later, with nothing but what OpenResty bundles. Times are in
-- seconds.

local VERSION = "2.1.0"
-- In an order in which each needs only those before it.
local PARTS = {
    "clock", "store", "totals", "log", "counts", "servers", "slow_start", "choice", "client", "answer",
    "news", "watching", "fleet", "words", "html", "grid", "look", "page", "listing", "metrics", "status",
}
local SAID_ONCE_IN = 10 -- seconds in which all workers load it after a start or a reload

local ngx, pcall = ngx, pcall

local _M = {}

-- Without its entry file, nginx would answer 502 to every request for our upstream.
local has_entry = false

local function check_version(name, found)
    if found ~= VERSION then
        error(name .. " is of version " .. tostring(found) .. ", container_healthcheck.lua of "
            .. VERSION .. ": copy all files of one version, then reload", 0)
    end
end

-- The files that nginx itself runs say their version in their first line.
local function check_entry(name)
    local folder = debug.getinfo(1, "S").source:match("^@(.*/)") or ""
    local file = io.open(folder .. name)
    if not file then
        return false
    end
    local line = file:read("*l") or ""
    file:close()
    check_version(name, line:match("^%-%- container%-healthcheck ([%d.]+): "))
    return true
end

local function load_parts()
    local parts = {}
    for _, name in ipairs(PARTS) do
        parts[name] = require("container_healthcheck." .. name)
        check_version("container_healthcheck/" .. name .. ".lua", parts[name].version)
    end
    check_entry("apps_balancer.lua")
    has_entry = check_entry("appo_balancer.lua")
    return parts
end

local function go_stock_way()
    ngx.var.target_up = ngx.var.app
end

local function nothing() end

-- What stands in for this module when it cannot be loaded: one line in the log, and the stock way.
local function stand_in(err)
    local dict = ngx.shared.container_healthcheck
    local text = "requests go the stock way: " .. tostring(err):match("[^\n]*")
    if not dict or dict:safe_add("first:" .. text, true, SAID_ONCE_IN) ~= false then
        ngx.log(ngx.ERR, "container-healthcheck: ", text)
    end
    return {
        start = nothing,
        rewrite = go_stock_way,
        balance = function() return ngx.exit(ngx.ERROR) end,
        note = nothing,
        status = function()
            ngx.status = 500
            ngx.say(text)
        end,
    }
end

local loaded, parts = pcall(load_parts)
if not loaded then
    return stand_in(parts)
end

local log, store, servers, choice = parts.log, parts.store, parts.servers, parts.choice
local list_of, first = servers.of, choice.first
local touch = parts.watching.touch
local counts, stock = parts.counts, parts.counts.stock
local has_balancer, balancer = pcall(require, "ngx.balancer")
local has_base, base = pcall(require, "resty.core.base")
local get_request = has_base and base.get_request or nothing
local can_balance = has_balancer and has_entry
local set_current_peer = can_balance and balancer.set_current_peer
local set_more_tries = can_balance and balancer.set_more_tries
local get_last_failure = can_balance and balancer.get_last_failure

local function complain_about(what, err)
    log.complain(what, "internal error: " .. log.printable(err))
end

-- init_worker_by_lua: begins to look for servers to watch. The first request does it else.
function _M.start()
    if store.is_there then
        parts.watching.start()
        counts.start(servers.is_app)
    end
end

-- The name of our upstream, which http.conf says: the same for all requests.
local own_upstream

local function find_upstream()
    own_upstream = ngx.var.container_healthcheck_upstream or ""
    if own_upstream ~= "" and not can_balance then
        log.complain("upstream", (has_balancer and "appo_balancer.lua" or "the Lua library ngx.balancer")
            .. " is missing: no request is tried on another server")
    end
end

-- The server for a request; from time to time also says that its servers are still asked for.
local function first_server(list)
    local server, is_new = first(list)
    local tally, chosen = list.tally, server.choice
    tally[chosen] = tally[chosen] + 1
    if is_new then
        _M.start()
        touch(list)
    end
    return server
end

-- What the rewrite phase found, for the balancer phase of the same request, which mostly follows at
-- once. When another request came between, the list is looked up again.
local handed_request, handed_list

-- Where a request for an app goes; nil for what is no app, but the name of our upstream.
local function target(app, given)
    if not own_upstream then
        find_upstream()
    end
    if app == own_upstream then
        return nil
    end
    if not store.is_there then
        log.complain("dict", "lua_shared_dict container_healthcheck is missing: requests go the stock way")
        return app
    end
    local list = list_of(app, given)
    if not list then
        return app
    elseif own_upstream == "" or not can_balance then
        return first_server(list).address
    end
    handed_request, handed_list = get_request(), list
    return own_upstream
end

-- rewrite_by_lua: sets `$target_up` for `$app`.
function _M.rewrite()
    local var = ngx.var
    local app = var.app
    local ok, chosen = pcall(target, app, var.appo_servers)
    if not ok then
        complain_about("rewrite", chosen)
        chosen = app
    elseif not chosen then
        return ngx.exit(502)
    end
    if chosen == app then
        stock.requests = stock.requests + 1
    end
    var.target_up = chosen
end

-- The addresses to which this request was sent in vain. In the variable " : " stands before the server
-- to come, and between the upstreams that a request came through.
local function tried_addresses()
    local text = ngx.var.upstream_addr:gsub(" : $", "")
    local addresses = {}
    for address in (text:match("^.* : (.*)$") or text):gmatch("[^, ]+") do
        addresses[#addresses + 1] = address
    end
    return addresses
end

local function another_server(list, failure)
    local tried = tried_addresses()
    list.tally.retries = list.tally.retries + 1
    if failure == "failed" then
        choice.mark_failed(list, tried[#tried])
    end
    return choice.another(list, tried)
end

local function next_server(list)
    local failure = get_last_failure()
    if failure then
        return another_server(list, failure)
    end
    local others = #list.servers - 1
    if others > 0 then
        set_more_tries(others)
    end
    return first_server(list)
end

local function list_of_request()
    local request = get_request()
    if request and request == handed_request then
        return handed_list
    end
    local var = ngx.var
    local app = var.app
    return app and list_of(app, var.appo_servers)
end

-- balancer_by_lua: the server that a request is sent to, the first or another one.
function _M.balance()
    local list = list_of_request()
    if not list then
        log.complain("balance", "the upstream is used by a location without apps_balancer.lua")
        return ngx.exit(ngx.ERROR)
    end
    local ok, server = pcall(next_server, list)
    if not ok then
        complain_about("balance", server)
        server = list.servers[1]
    end
    local set, err = set_current_peer(server.host, server.port)
    if not set then
        log.complain("peer", server.address .. ": " .. log.printable(err))
    end
end

local function mark_last(var)
    local status = (var.upstream_status or ""):match("(%d+)$")
    if (status ~= "502" and status ~= "504") or var.target_up ~= own_upstream then
        return
    end
    local list = list_of_request()
    if list then
        choice.mark_failed(list, (var.upstream_addr or ""):match("([^%s,]+)$"))
    end
end

-- log_by_lua: a failure that nginx may not retry (a POST) is known here only.
function _M.note()
    if store.is_there and own_upstream and own_upstream ~= "" then
        local ok, err = pcall(mark_last, ngx.var)
        if not ok then
            complain_about("note", err)
        end
    end
end

-- content_by_lua: what this gateway believes, for people and for machines.
_M.status = parts.status.answer

return _M
