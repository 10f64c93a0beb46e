-- container-healthcheck 2.1.0: what all workers share. No other file knows the keys of the shared
-- dictionary. Nothing here waits, so it may be called in every phase.
--
--   version              changes with everything that a choice depends on
--   record:ADDRESS       what is known of a server, as JSON (see watch.lua)
--   number:ADDRESS       changes with the record
--   valid:ADDRESS        expires when the server was silent for too long
--   answered:ADDRESS     when it last answered as the service does
--   lease:ADDRESS        the process id of the worker that watches it
--   slot:N, slots        the addresses that are watched, and how many slots are in use
--   wanted:ADDRESS       expires when no request has asked for the server for a while
--   failed:ADDRESS/APP   when a request failed there
--   counted:N            the Nth app whose requests are counted
--   count:APP            when they last were
--   count:APP/KIND       how many were of that kind
--   counts               changes with all of these
--   first:ABOUT          was logged

local cjson = require("cjson.safe")

local dict = ngx.shared.container_healthcheck
local now = ngx.now

local LEASE = 6 -- seconds after which another worker may watch a server whose watcher is silent
-- An answer counts for longer than it takes until another worker has asked: the lease, a look for
-- servers that nobody watches, one whole question.
local VALID = LEASE + 5
local FAILED_FOR = 2
local FORGET = 600 -- seconds after which a server that no request asks for is no longer watched
local MAX_SERVERS = 256
local MAX_COUNTED = 2000

local _M = { version = "2.1.0", is_there = dict ~= nil, max_servers = MAX_SERVERS }

-- True also when the clock was set back: better too early than hours too late.
function _M.is_over(since, seconds)
    local elapsed = now() - since
    return elapsed < 0 or elapsed >= seconds
end
local is_over = _M.is_over

local read_at, read

-- The version as of `moment`, which is ngx.now(). Within one moment the dictionary is read once.
function _M.version_at(moment)
    if moment ~= read_at then
        read_at, read = moment, dict:get("version")
    end
    return read
end

-- To be called after a change is written: workers that read the new version find the change.
function _M.changed()
    read_at = nil
    dict:safe_add("version", 0)
    dict:incr("version", 1)
end

local logged = {}

-- True for the first of all workers that asks within that time; without `seconds`, until `again`.
function _M.is_first(about, seconds)
    if seconds and logged[about] and not is_over(logged[about], seconds) then
        return false
    end
    logged[about] = now()
    if not dict then
        return true
    end
    local _, err = dict:safe_add("first:" .. about, true, seconds or 0)
    return err ~= "exists"
end

function _M.again(about)
    dict:delete("first:" .. about)
end


-- A server

local decoded = {}

-- What is known of a server, whether still valid or not; nil for nothing. Not to be changed.
function _M.record(address)
    local number = dict:get("number:" .. address)
    local kept = decoded[address]
    if not kept or kept.number ~= number then
        local text = number and dict:get("record:" .. address)
        kept = { number = number, record = text and cjson.decode(text) or nil }
        decoded[address] = kept
    end
    return kept.record
end

-- True when there was room for it.
function _M.keep_record(address, record)
    local ok = dict:safe_set("record:" .. address, cjson.encode(record))
    if not ok then
        dict:delete("record:" .. address)
    end
    dict:safe_add("number:" .. address, 0)
    dict:incr("number:" .. address, 1)
    return ok
end

-- False when nothing is known of the server, or nothing any more.
function _M.is_valid(address)
    return dict:get("valid:" .. address) ~= nil
end

-- The server has just answered; `as_service` is false when another program did.
function _M.keep_valid(address, as_service)
    dict:safe_set("valid:" .. address, true, VALID)
    if as_service then
        dict:safe_set("answered:" .. address, now())
    end
end

function _M.drop_valid(address)
    dict:delete("valid:" .. address)
end

-- When it last answered as the service does, or nil.
function _M.answered(address)
    return dict:get("answered:" .. address)
end

-- Apps that no server lists share one mark, app "": made-up names must not fill the memory.
function _M.has_failed(address, app)
    local at = dict:get("failed:" .. address .. "/" .. app)
    return at ~= nil and not is_over(at, FAILED_FOR)
end

function _M.keep_failed(address, app)
    local is_new = not _M.has_failed(address, app)
    dict:safe_set("failed:" .. address .. "/" .. app, now(), FAILED_FOR)
    dict:safe_set("failed", now(), FAILED_FOR)
    if is_new then
        _M.changed()
    end
end

-- False when no request failed anywhere in the last seconds.
function _M.has_any_failed()
    return dict:get("failed") ~= nil
end


-- Which servers are watched, and by which worker

function _M.addresses()
    local found, seen = {}, {}
    for number = 1, dict:get("slots") or 0 do
        local address = dict:get("slot:" .. number)
        if address and not seen[address] then
            seen[address] = true
            found[#found + 1] = address
        end
    end
    return found
end

local function take_slot(address)
    local used, free = dict:get("slots") or 0, nil
    for number = 1, used do
        local there = dict:get("slot:" .. number)
        if there == address then
            return true
        end
        free = free or (there == nil and number)
    end
    for number = free or used + 1, MAX_SERVERS do
        local ok, err = dict:safe_add("slot:" .. number, address)
        if ok and number > used then
            dict:safe_set("slots", number)
        end
        if ok or err ~= "exists" or dict:get("slot:" .. number) == address then
            return ok or err == "exists", err
        end
    end
    return false, "full"
end

-- Asks for a server to be watched. Returns false and why when it cannot be: "full" or "no memory".
function _M.want(address)
    local ok, err = dict:safe_set("wanted:" .. address, true, FORGET)
    if ok then
        ok, err = take_slot(address)
    end
    return ok, err
end

function _M.is_wanted(address)
    return dict:get("wanted:" .. address) ~= nil
end

function _M.forget(address)
    for number = 1, dict:get("slots") or 0 do
        if dict:get("slot:" .. number) == address then
            dict:delete("slot:" .. number)
        end
    end
    for _, kind in ipairs({ "record:", "number:", "valid:", "answered:" }) do
        dict:delete(kind .. address)
    end
    _M.changed()
end

function _M.watcher(address)
    return dict:get("lease:" .. address)
end

function _M.take_lease(address, pid)
    return dict:safe_add("lease:" .. address, pid, LEASE) or _M.watcher(address) == pid
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

-- Keys that never expire hold expired ones back at the end of the dictionary's list.
function _M.clean()
    dict:flush_expired(100)
end


-- How many requests all workers have counted

-- The apps whose requests are counted.
function _M.counted()
    local apps = {}
    for number = 1, MAX_COUNTED do
        apps[number] = dict and dict:get("counted:" .. number)
        if not apps[number] then
            break
        end
    end
    return apps
end

-- When the app's requests were last counted, or nil.
function _M.counted_at(app)
    return dict:get("count:" .. app)
end

local function add(key, number)
    local ok, err = dict:safe_add(key, number)
    if not ok and err == "exists" then
        ok = dict:incr(key, number)
    end
    return ok ~= nil and ok ~= false
end

local function begin_to_count(app)
    local key = "count:" .. app
    -- Only one worker adds it, and takes a number for it.
    local ok, err = dict:safe_add(key, now())
    if not ok then
        return err == "exists" and dict:replace(key, now())
    end
    for number = 1, MAX_COUNTED do
        ok, err = dict:safe_add("counted:" .. number, app)
        if ok or err ~= "exists" then
            break
        end
    end
    if not ok then
        dict:delete(key)
    end
    return ok
end

-- Adds to the app's counts, or to those of all apps when it is "". What found room becomes 0.
function _M.add_counts(app, counts)
    if not dict or (app ~= "" and not begin_to_count(app)) then
        return
    end
    add("counts", 1)
    for kind, number in pairs(counts) do
        if number > 0 and add("count:" .. app .. "/" .. kind, number) then
            counts[kind] = 0
        end
    end
end

-- Changes with all counts.
function _M.counts_version()
    return dict and dict:get("counts") or 0
end

function _M.count(app, kind)
    return dict and dict:get("count:" .. app .. "/" .. kind) or 0
end

return _M
