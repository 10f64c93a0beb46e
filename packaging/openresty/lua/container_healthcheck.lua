-- container-healthcheck 2.1.0: sends each user request to an APPO server on which the app serves.
--
-- One worker watches each APPO server, in a timer, and keeps what it answers in a shared dictionary; a
-- user request only reads that. Nothing here may ever stop a request: whatever goes wrong, nginx
-- routes the request as it would without this module.
--
-- Runs on lua-nginx-module 0.10.15 and later, with nothing but what OpenResty bundles. Times are in
-- seconds.

local VERSION = "2.1.0"
-- In an order in which each needs only those before it.
local PARTS = { "store", "log", "client", "watch", "choice", "fleet", "metrics", "status" }
local SAID_ONCE_IN = 10 -- seconds in which all workers load it after a start or a reload

local ngx, pcall, error, tostring = ngx, pcall, error, tostring

local _M = {}

local function check_version(name, found)
    if found ~= VERSION then
        error(name .. " is of version " .. tostring(found) .. ", container_healthcheck.lua of "
            .. VERSION .. ": copy all files of one version, then reload", 0)
    end
end

local function load_parts()
    local parts = {}
    for _, name in ipairs(PARTS) do
        local part = require("container_healthcheck." .. name)
        check_version("container_healthcheck/" .. name .. ".lua", type(part) == "table" and part.version)
        parts[name] = part
    end
    return parts, require("ngx.balancer")
end

-- What stands in for this module when it cannot be loaded: one line in the log, and stock routing.
local function stand_in(err)
    local dict = ngx.shared.container_healthcheck
    local text = "falling back to stock routing: " .. tostring(err):match("[^\n]*")
    if not dict or dict:safe_add("first:" .. text, true, SAID_ONCE_IN) ~= false then
        ngx.log(ngx.ERR, "container-healthcheck: ", text)
    end
    local function nothing() end
    return {
        start = nothing,
        rewrite = function() ngx.var.target_up = ngx.var.app end,
        balance = nothing,
        observe = nothing,
        note = nothing,
        status = function()
            ngx.status = 500
            ngx.say(text)
        end,
    }
end

local loaded, parts, balancer = pcall(load_parts)
if not loaded then
    return stand_in(parts)
end

local choice, log, store, watch = parts.choice, parts.log, parts.store, parts.watch
local first, renew, list_of, is_there = choice.first, choice.renew, choice.list_of, store.is_there
local set_current_peer, set_more_tries = balancer.set_current_peer, balancer.set_more_tries
local get_last_failure = balancer.get_last_failure
local has_base, base = pcall(require, "resty.core.base")
local get_request = has_base and base.get_request or function() return nil end
local ensure, find = watch.ensure, string.find

local cleaned_at

-- About once a second, and the rest once a minute.
function watch.housekeeping()
    choice.add_counts()
    if parts.metrics.counts.stock > 0 then
        store.add_counts("", parts.metrics.counts)
    end
    if not cleaned_at or store.is_over(cleaned_at, 60) then
        cleaned_at = ngx.now()
        watch.want(choice.configured())
        store.clean()
    end
end

-- init_worker_by_lua: begins to watch.
function _M.start()
    if is_there then
        watch.start()
    end
end

-- The list of servers with ranks that are not old.
local function renewed(list)
    if renew(list) then
        ensure()
        watch.want(list)
    end
    return list
end

local function count(list, state)
    local counts = list.counts
    counts[state] = counts[state] + 1
end

local function count_stock()
    local counts = parts.metrics.counts
    counts.stock = counts.stock + 1
end

local function says_no_dictionary()
    log.complain("dict", "lua_shared_dict container_healthcheck is missing: falling back to stock routing")
end


-- In the location: our own upstream takes the place of the app's

-- Its name, which http.conf says: the same for all requests. "" where the site does not have it.
local own_upstream

local function find_upstream(var)
    own_upstream = var.container_healthcheck_upstream or ""
end

-- What the rewrite phase found, for the balancer phase of the same request, which mostly follows at
-- once. When another request came between, the list is looked up again.
local handed_request, handed_list

-- Where a request for an app goes; the app itself means stock routing.
local function target(var, app)
    handed_request = nil
    if not own_upstream then
        find_upstream(var)
    end
    if not is_there then
        says_no_dictionary()
    end
    local list = is_there and list_of(app, var.appo_servers)
    if not list then
        count_stock()
        return app
    elseif renewed(list).observe then
        return app
    elseif own_upstream ~= "" then
        handed_request, handed_list = get_request(), list
        return own_upstream
    end
    local server = first(list)
    count(list, server.state)
    return server.address
end

-- rewrite_by_lua: sets `$target_up` for `$app`.
function _M.rewrite()
    local var = ngx.var
    local app = var.app
    local ok, chosen = pcall(target, var, app)
    if not ok then
        log.internal_error("rewrite", chosen)
        chosen = app
    end
    var.target_up = chosen
end


-- In the upstream: ours, or the app's own

-- The addresses to which this request was sent in vain. In the variable " : " stands before the server
-- to come, and between the upstreams that a request came through.
local function tried_addresses()
    local text = (ngx.var.upstream_addr or ""):gsub(" : $", "")
    local addresses = {}
    for address in (text:match("^.* : (.*)$") or text):gmatch("[^, ]+") do
        addresses[#addresses + 1] = address
    end
    return addresses
end

local function another_server(list, failure)
    local tried = tried_addresses()
    count(list, "retries")
    if failure == "failed" then
        choice.mark_failed(list, tried[#tried])
        renew(list)
    end
    return choice.another(list, tried)
end

local function send_to(server)
    local ok, err = set_current_peer(server.host, server.port)
    if not ok then
        log.complain("peer", server.address .. ": " .. log.printable(err))
    end
end

local function list_of_location(var)
    local app = var.app
    return app and list_of(app, var.appo_servers)
end

local function list_of_upstream(var, name)
    return list_of(name, not choice.has_upstreams and var.appo_servers or nil)
end

-- Sends the request on from our own upstream.
local function balance_own(var)
    local request = get_request()
    local list = request and request == handed_request and handed_list or list_of_location(var)
    if not list then
        return
    end
    renewed(list)
    local failure = get_last_failure()
    if failure then
        return send_to(another_server(list, failure))
    end
    if #list.servers > 1 then
        set_more_tries(#list.servers - 1)
    end
    local server = first(list)
    count(list, server.state)
    send_to(server)
end

-- Where nothing is known of any server, or the app is down on all of them, nginx takes its own turn. What
-- fails then is noticed when the request has ended.
local function balance_app(var, name, is_observed)
    local list = list_of_upstream(var, name)
    if not list then
        return count_stock()
    end
    renewed(list)
    if is_observed then
        choice.observe(list)
    end
    if list.observe then
        return
    elseif list.is_stock then
        return count(list, tried_addresses()[1] and "retries" or list.common)
    end
    local failure = get_last_failure()
    if failure then
        return send_to(another_server(list, failure))
    end
    local server = first(list)
    count(list, server.state)
    send_to(server)
end

local function balance(is_observed)
    local var = ngx.var
    if not own_upstream then
        find_upstream(var)
    end
    -- The http.conf of version 2.1.0 does not have the name.
    local name = var.container_healthcheck_app or var.target_up
    if not is_there then
        says_no_dictionary()
    elseif not name then
        log.complain("http.conf", "http.conf is of an older version: falling back to stock routing")
    elseif name == own_upstream then
        balance_own(var)
    elseif name ~= "" then
        balance_app(var, name, is_observed)
    end
end

local function balance_safely(is_observed)
    local ok, err = pcall(balance, is_observed)
    if not ok then
        log.internal_error("balance", err)
    end
end

-- balancer_by_lua: chooses the server for a request, or leaves that to nginx.
function _M.balance()
    balance_safely(false)
end

-- The same for an app that is only observed.
function _M.observe()
    balance_safely(true)
end


-- When a request has ended

-- The items of the first upstream that the request came through: an `error_page` may lead to others.
local function items(text)
    local found = {}
    for item in (text:match("^(.-) : ") or text):gmatch("[^, ]+") do
        found[#found + 1] = item
    end
    return found
end

-- The list that the request's server was chosen from; after an `error_page` only `$app` says it.
local function list_of_request(var, address)
    local name = var.container_healthcheck_app or ""
    local list = name ~= "" and name ~= own_upstream and list_of_upstream(var, name)
    if not (list and list.version and choice.server_at(list, address)) then
        list = choice.knows(address) and list_of_location(var)
    end
    return list and list.version and list or nil
end

local function note(var, status)
    local addresses, statuses = items(var.upstream_addr or ""), items(status)
    local list = addresses[1] and list_of_request(var, addresses[#addresses])
    for index, each in ipairs(list and statuses or {}) do
        local has_failed, is_last = each == "502" or each == "504", index == #statuses
        if is_last and list.observe then
            choice.note_observed(list, addresses[1], has_failed)
        end
        -- Other failures were noticed when the next server was chosen.
        if has_failed and (is_last or list.is_stock) then
            choice.mark_failed(list, addresses[index])
        end
    end
end

-- log_by_lua: a failure that nginx may not retry (a POST) is known here only.
function _M.note()
    local var = ngx.var
    local status = is_there and var.upstream_status
    if status and (choice.is_observing or find(status, "50[24]")) then
        local ok, err = pcall(note, var, status)
        if not ok then
            log.internal_error("note", err)
        end
    end
    if is_there then
        ensure()
    end
end

-- content_by_lua: what this gateway considers, for people and for machines.
_M.status = parts.status.answer

return _M
