-- container-healthcheck 2.1.0: what all workers know. It alone knows the keys of the shared dictionary,
-- but for those of totals.lua. Runs in every phase, and in timers: nothing here waits.
--
--   version                  changes with everything that a choice rests on
--   state:ADDRESS            0 complete, -1 some apps are missing, above 0 the code of its fault
--   verdict:ADDRESS/APP      the code of an app there
--   apps:ADDRESS             the names of the apps that have a code there
--   risen:ADDRESS/APP        when that code became 0 beside a gateway that was already running
--   failed:ADDRESS/APP       when a request failed there
--   heard:ADDRESS            when it last answered as the service does
--   error:ADDRESS            why nothing is known of it
--   lease:ADDRESS            the process id of the worker that watches it
--   server:N                 the address that has the place N among the watched
--   placed:ADDRESS           since when it has that place
--   stranger:ADDRESS         it never answered as the service does: no place for a while
--   first:ABOUT              was said
--
-- States, verdicts and errors have since when they are so as their flags, in whole seconds: that
-- takes no room.

local clock = require("container_healthcheck.clock")

local dict = ngx.shared.container_healthcheck
local now = ngx.now
local is_over, floor = clock.is_over, math.floor

local LEASE = 6 -- seconds after which another worker may watch a server whose watcher is silent
-- What was heard counts for longer than it takes until another worker has asked: the lease, a look
-- for servers that nobody watches, one whole question.
local VALID = LEASE + 4
local VERDICT_VALID = 60
local RISEN_VALID = 3600
local FAILED_FOR = 2 -- seconds
local FORGET = 600 -- seconds after which a server that no request asked for is watched no more
local STRANGE_FOR = 60
local MAX_SERVERS = 64

local _M = {
    version = "2.1.0",
    is_there = dict ~= nil,
    max_servers = MAX_SERVERS,
    complete = 0,
    partial = -1,
}

-- Called once a worker; room that is missing now is missed by nothing but the speed of a change.
function _M.prepare()
    dict:safe_add("version", 0)
end

local read_at, read = nil, nil

-- The version as of `moment`, which is ngx.now(). Within one moment the dictionary is read once.
function _M.version_at(moment)
    if moment ~= read_at then
        read_at, read = moment, dict:get("version")
    end
    return read
end

-- To be called after what was changed is written: who reads the new version finds it.
function _M.changed()
    read_at = nil
    dict:incr("version", 1)
end

-- True for the first of all workers that asks within that time.
local asked = {}
function _M.is_first(about, seconds)
    if asked[about] and not is_over(asked[about], seconds) then
        return false
    end
    asked[about] = now()
    if not dict then
        return true
    end
    local _, err = dict:safe_add("first:" .. about, true, seconds)
    return err ~= "exists"
end


local function since_when(kept)
    return kept or floor(now())
end


-- A server as a whole

-- And since when.
function _M.state(address)
    return dict:get("state:" .. address)
end

-- True when there was room for it.
function _M.keep_state(address, state)
    local before, since = _M.state(address)
    dict:safe_set("heard:" .. address, now())
    dict:delete("error:" .. address)
    return dict:safe_set("state:" .. address, state, VALID, since_when(before == state and since))
end

-- When it last answered, or nil.
function _M.heard(address)
    return dict:get("heard:" .. address)
end

-- And since when.
function _M.error(address)
    return dict:get("error:" .. address)
end

function _M.keep_error(address, text)
    local _, since = _M.error(address)
    dict:delete("state:" .. address)
    dict:safe_set("error:" .. address, text, FORGET, since_when(since))
end

function _M.forget(address)
    for _, kind in ipairs({ "state:", "heard:", "error:", "placed:", "apps:" }) do
        dict:delete(kind .. address)
    end
end


-- An app on a server

-- And since when.
function _M.code(address, app)
    return dict:get("verdict:" .. address .. "/" .. app)
end

-- True when there was room for it.
function _M.keep_code(address, app, code)
    local before, since = _M.code(address, app)
    return dict:safe_set("verdict:" .. address .. "/" .. app, code, VERDICT_VALID,
        since_when(before == code and since))
end

function _M.drop_code(address, app)
    dict:delete("verdict:" .. address .. "/" .. app)
    dict:delete("risen:" .. address .. "/" .. app)
end

-- The names of the apps of a server, as it last listed them.
function _M.apps(address)
    local names = {}
    for name in (dict:get("apps:" .. address) or ""):gmatch("%S+") do
        names[#names + 1] = name
    end
    return names
end

-- True when there was room for it. Names of apps have no spaces in them.
function _M.keep_apps(address, names)
    return dict:safe_set("apps:" .. address, table.concat(names, " "), VERDICT_VALID)
end

function _M.risen(address, app)
    return dict:get("risen:" .. address .. "/" .. app)
end

function _M.keep_risen(address, app)
    dict:safe_set("risen:" .. address .. "/" .. app, now(), RISEN_VALID)
end

-- Apps that no server lists share one mark, app "": made-up names must not fill the memory.
function _M.has_failed(address, app)
    local at = dict:get("failed:" .. address .. "/" .. app)
    return at ~= nil and not is_over(at, FAILED_FOR)
end

function _M.keep_failed(address, app)
    local is_new = not _M.has_failed(address, app)
    dict:safe_set("failed:" .. address .. "/" .. app, now(), FAILED_FOR)
    if is_new then
        _M.changed()
    end
end


-- Who watches

function _M.watcher(address)
    return dict:get("lease:" .. address)
end

function _M.take_lease(address, pid)
    return dict:safe_add("lease:" .. address, pid, LEASE)
end

-- False when another worker has it by now.
function _M.renew_lease(address, pid)
    return _M.watcher(address) == pid and dict:safe_set("lease:" .. address, pid, LEASE)
end

function _M.give_lease_back(address, pid)
    if _M.watcher(address) == pid then
        dict:delete("lease:" .. address)
    end
end


-- What is watched: a limited number of places

local function place(number)
    return "server:" .. number
end

-- The address that has a place, or nil.
function _M.placed(number)
    return dict:get(place(number))
end

function _M.is_placed(address)
    for number = 1, MAX_SERVERS do
        if dict:get(place(number)) == address then
            return true
        end
    end
    return false
end

-- Since when a server that was never heard has its place; nil when it was heard.
function _M.on_trial_since(address)
    if _M.heard(address) then
        return nil
    end
    return dict:get("placed:" .. address)
end

-- Takes the place from a server that was never heard, which may have it again later.
function _M.dismiss(address)
    for number = 1, MAX_SERVERS do
        if dict:get(place(number)) == address then
            dict:delete(place(number))
        end
    end
    dict:safe_set("stranger:" .. address, true, STRANGE_FOR)
end

local function sit_down(number, address)
    dict:safe_set("placed:" .. address, now())
    return dict:safe_set(place(number), address, FORGET)
end

-- The place of the server that has been on trial for longest, for `seconds` at least.
local function place_on_trial(seconds)
    local found, longest = nil, nil
    for number = 1, MAX_SERVERS do
        local address = dict:get(place(number))
        local since = address and _M.on_trial_since(address)
        if since and is_over(since, seconds) and (not longest or since < longest) then
            found, longest = number, since
        end
    end
    return found
end

-- Gives a server a place or lets it keep its own. When all are taken it gets that of one that has
-- been on trial for `seconds`. Returns nil and why when it has none: "full" or "no memory".
-- Two workers may give it two places, or one place to two servers: the next call mends that.
function _M.keep_place(address, seconds)
    local free
    for number = 1, MAX_SERVERS do
        local there = dict:get(place(number))
        if there == address then
            dict:safe_set(place(number), address, FORGET)
            return true
        end
        free = free or (there == nil and number)
    end
    if dict:get("stranger:" .. address) then
        return true
    end
    free = free or place_on_trial(seconds)
    if not free then
        return nil, "full"
    end
    return sit_down(free, address)
end

return _M
