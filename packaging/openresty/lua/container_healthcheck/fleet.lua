-- container-healthcheck 2.1.0: the servers and apps that are known, and what is considered of each, for
-- the page, the JSON and the metrics. Runs in the content phase, in slices between which nginx serves
-- users.

local choice = require("container_healthcheck.choice")
local log = require("container_healthcheck.log")
local store = require("container_healthcheck.store")

local ngx, ipairs, pairs, sort, concat = ngx, ipairs, pairs, table.sort, table.concat

local NO_CONTAINER = 12
local ASKED_FOR = 600 -- seconds for which an app that no server lists is shown after a request for it
local SLICE = 0.001 -- seconds of work, after which other requests have their turn
local AT_ONCE = 50 -- texts between which the clock is looked at
local PIECE = 400 -- texts in a piece

local _M = { version = "2.1.0" }

-- A long text in the making: pieces, which are sent one after another.
local Writer = {}
Writer.__index = Writer

function _M.writer()
    return setmetatable({ pieces = {}, texts = {}, began = ngx.now() }, Writer)
end

function Writer:breathe()
    ngx.update_time()
    local elapsed = ngx.now() - self.began
    if elapsed < 0 or elapsed >= SLICE then
        ngx.sleep(0)
        ngx.update_time()
        self.began = ngx.now()
    end
end

function Writer:add(text)
    local texts = self.texts
    texts[#texts + 1] = text
    if #texts % AT_ONCE == 0 then
        self:breathe()
    end
    if #texts >= PIECE then
        self.pieces[#self.pieces + 1], self.texts = concat(texts), {}
    end
end

function Writer:finish()
    self.pieces[#self.pieces + 1] = concat(self.texts)
    return self.pieces
end

local function server_at(address)
    local record = store.record(address) or {}
    local is_valid = store.is_valid(address)
    local state = is_valid and record.state or "silent"
    local is_foreign = record.state == "foreign"
    local reason = record.error or (state == "fault" and log.reasons[record.code]) or nil
    return {
        address = address,
        record = record,
        is_valid = is_valid,
        state = state == "known" and "known" or state == "fault" and choice.down or choice.unknown,
        code = state == "fault" and record.code or nil,
        reason = is_foreign and "not an APPO server: " .. reason or reason,
        since = record.since,
        answered = store.answered(address),
        watched_by = store.watcher(address),
        is_foreign = is_foreign,
        apps = record.apps or {},
    }
end

-- All servers that are watched, by address.
function _M.servers(writer)
    local addresses = store.is_there and store.addresses() or {}
    sort(addresses)
    for index, address in ipairs(addresses) do
        addresses[index] = server_at(address)
        writer:breathe()
    end
    return addresses
end

-- The apps that a server lists, and those that requests ask for and no server lists any more: in order,
-- and which of them are listed.
function _M.apps(servers, writer)
    local names, is_listed = {}, {}
    for _, server in ipairs(servers) do
        for app in pairs(server.apps) do
            if is_listed[app] == nil then
                names[#names + 1], is_listed[app] = app, true
            end
        end
        writer:breathe()
    end
    for _, app in ipairs(store.counted()) do
        local at = store.counted_at(app)
        if is_listed[app] == nil and at and ngx.now() - at < ASKED_FOR then
            names[#names + 1], is_listed[app] = app, false
        end
    end
    sort(names)
    writer:breathe()
    return names, is_listed
end

-- What is considered of an app on a server: state, code, since when, and whether that is so for all apps
-- there; nil when the app does not belong there. `roles` as choice.roles has them.
function _M.cell(server, app, roles, is_listed)
    local entry = server.apps[app]
    local belongs = roles and roles[server.address]
    if not entry and (roles and not belongs
        or not belongs and (server.is_foreign or is_listed and server.state == "known")) then
        return nil
    end
    local state, code = choice.state_of(server.record, server.is_valid, app)
    if server.state ~= "known" then
        return state, server.code, server.since, true
    elseif entry then
        return state, code, entry[2], false
    end
    return state, state == choice.down and NO_CONTAINER or nil, nil, state == choice.unknown
end

return _M
