-- container-healthcheck 2.1.0: the servers and apps that are known, and what is believed of each, for the
-- page, the JSON and the metrics. Runs in the content phase: it lets requests pass now and then.

local choice = require("container_healthcheck.choice")
local log = require("container_healthcheck.log")
local servers = require("container_healthcheck.servers")
local store = require("container_healthcheck.store")
local totals = require("container_healthcheck.totals")

local ngx, ipairs, pairs, sort = ngx, ipairs, pairs, table.sort

local NO_CONTAINER, DRAINED = 12, 15
local ASKED_FOR = 600 -- seconds for which an app that no server lists is shown after a request for it

local AT_ONCE = 100 -- apps between which requests may pass

local _M = { version = "2.1.0", at_once = AT_ONCE }

local function addresses()
    local found, seen = {}, {}
    for number = 1, store.max_servers do
        local address = store.placed(number)
        if address and not seen[address] then
            seen[address] = true
            found[#found + 1] = address
        end
    end
    sort(found)
    return found
end

local function listed(address, state)
    local apps = {}
    for _, app in ipairs(store.apps(address)) do
        local code, since = store.code(address, app)
        if code then
            apps[app] = {
                state = choice.state_of(state, code),
                code = code,
                reason = log.reasons[code],
                since = since,
                failed = store.has_failed(address, app),
            }
        end
    end
    return apps
end

local function server_at(address)
    local state, since = store.state(address)
    local fault = state and state > 0 and state or nil
    local err, err_since = store.error(address)
    if state == nil then
        since = err_since
    end
    return {
        address = address,
        raw = state,
        state = state == nil and choice.unknown or fault and choice.down or "known",
        code = fault,
        reason = err or (fault and log.reasons[fault]),
        since = since,
        heard = store.heard(address),
        watched_by = store.watcher(address),
        apps = listed(address, state),
    }
end

-- All servers that are watched, by address.
function _M.servers()
    local found = {}
    for index, address in ipairs(store.is_there and addresses() or {}) do
        found[index] = server_at(address)
        ngx.sleep(0)
    end
    return found
end

-- What is believed of an app on a server that does not list it; nil when it has no business there.
local function unlisted(server, roles, is_listed)
    local belongs = roles and roles[server.address]
    if (roles and not belongs) or (not belongs and is_listed and server.raw == store.complete) then
        return nil
    end
    local code = server.code or (server.raw == store.complete and NO_CONTAINER) or nil
    return {
        state = choice.state_of(server.raw, nil),
        code = code,
        reason = server.reason or log.reasons[code],
        since = server.raw ~= store.complete and server.since or nil,
        is_servers = server.raw ~= store.complete,
    }
end

-- Where nothing is known of the server, or Docker is away there, all its apps share why.
local function of_server(server, entry)
    if server.state == "known" then
        return entry
    end
    return {
        state = entry.state,
        code = server.code,
        reason = server.reason,
        since = server.since,
        failed = entry.failed,
        is_servers = true,
    }
end

local function kind_of(cell)
    if cell.state == choice.up then
        return "good"
    elseif cell.state == choice.unknown then
        return "unknown"
    end
    return cell.code == DRAINED and "drained" or "bad"
end

local function row_of(app, all, is_listed)
    local roles = servers.roles(app)
    local row = { app = app, cells = {}, roles = roles or {}, has = {} }
    for index, server in ipairs(all) do
        local entry = server.apps[app]
        local cell = entry and of_server(server, entry) or unlisted(server, roles, is_listed)
        if cell then
            cell.kind = kind_of(cell)
            row.cells[index], row.has.any = cell, true
            -- The trouble of a server is not that of an app that others serve.
            if not cell.is_servers then
                row.has[cell.kind] = true
            end
            row.has.doubt = row.has.doubt or cell.kind == "unknown"
        end
    end
    row.is_served = row.has.good == true
    row.in_trouble = not row.is_served or row.has.bad == true
    row.order = not row.is_served and 1 or row.in_trouble and 2 or row.has.drained and 3 or 4
    return row
end

-- The apps that a server lists, and those that somebody asked for and none lists any more.
local function apps_of(all)
    local apps = {}
    for _, server in ipairs(all) do
        for app in pairs(server.apps) do
            apps[app] = true
        end
    end
    for _, app in ipairs(store.is_there and totals.counted() or {}) do
        local at = totals.counted_at(app)
        if apps[app] == nil and at and ngx.now() - at < ASKED_FOR then
            apps[app] = false
        end
    end
    return apps
end

-- An app a row, with a cell for each of `all` servers where it belongs; what is worst first.
function _M.rows(all)
    local rows, number = {}, 0
    for app, is_listed in pairs(apps_of(all)) do
        number = number + 1
        if number % AT_ONCE == 0 then
            ngx.sleep(0)
        end
        local row = row_of(app, all, is_listed)
        if row.has.any then
            rows[#rows + 1] = row
        end
    end
    sort(rows, function(one, other)
        if one.order ~= other.order then
            return one.order < other.order
        end
        return one.app < other.app
    end)
    return rows
end

return _M
