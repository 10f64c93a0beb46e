-- container-healthcheck 2.1.0: takes an answer in: what of it is news goes into the store and, in
-- words, into the log. Runs in timers, in the one worker that watches the server.
--
-- A watch is what that worker remembers of a server from one question to the next:
--   codes, cut, partial   what it said last, whether some of it was too much, or found no room
--   written               when all of it was written last
--   etag                  of what it said
--   risen                 apps that came back and of which the log does not say so yet, and when
--   complained            the log says that the server does not answer

local answers = require("container_healthcheck.answer")
local choice = require("container_healthcheck.choice")
local clock = require("container_healthcheck.clock")
local log = require("container_healthcheck.log")
local store = require("container_healthcheck.store")

local ipairs, pairs, now, is_over = ipairs, pairs, ngx.now, clock.is_over
local UP, UNKNOWN, DOWN = choice.up, choice.unknown, choice.down

local RENEW = 20 -- seconds after which everything is written again
-- An app that comes back may be up for one worker of the service and not yet for the other: the log
-- says that it is up when it has been so for that long. Requests obey at once.
local SETTLED = 3
local NO_CONTAINER = 12
local MAX_ETAG = 200

local _M = { version = "2.1.0" }

local function count(codes)
    local up, down = 0, 0
    for _, code in pairs(codes) do
        if code == 0 then
            up = up + 1
        else
            down = down + 1
        end
    end
    return up .. " apps up, " .. down .. " down"
end

local function say_up(address, app)
    log.say(address, " ", app, ": ", DOWN, " -> ", UP)
end

local function note_change(address, watch, app, old, new)
    if old == 0 and new ~= 0 then
        if watch.risen[app] then
            watch.risen[app] = nil
        else
            log.say(address, " ", app, ": ", UP, " -> ", DOWN, ", ", log.describe(new))
        end
    elseif old ~= 0 and new == 0 then
        watch.risen[app] = now()
        store.keep_risen(address, app)
    end
end

-- Says which apps have come back: those that are up for long enough, or all of them.
function _M.say_risen(address, watch, all)
    for app, since in pairs(watch.risen) do
        if all or is_over(since, SETTLED) then
            watch.risen[app] = nil
            say_up(address, app)
        end
    end
end

-- Which apps of a server the store knows, for a watcher that has just begun.
local function kept_codes(address)
    local codes = {}
    for _, app in ipairs(store.apps(address)) do
        codes[app] = store.code(address, app)
    end
    return codes
end

local function drop_vanished(address, watch, codes, before)
    local dropped = false
    for app in pairs(watch.codes or kept_codes(address)) do
        if codes[app] == nil then
            if before == store.complete then
                note_change(address, watch, app, store.code(address, app), NO_CONTAINER)
            end
            store.drop_code(address, app)
            dropped = true
        end
    end
    return dropped
end

-- An app that was not known before is news only where all others were.
local function is_news(before, old)
    return before == store.complete or (before == store.partial and old ~= nil)
end

-- True when there was room for the names.
local function keep_apps(address, codes)
    local names = {}
    for app in pairs(codes) do
        names[#names + 1] = app
    end
    return store.keep_apps(address, names)
end

-- Writes what changed, and everything from time to time. True when all of it found room.
local function write_codes(address, watch, codes, before)
    local renew = not watch.written or is_over(watch.written, RENEW)
    if codes == watch.codes and not renew then
        return not watch.partial
    end
    local changed = drop_vanished(address, watch, codes, before)
    local complete, has_others = true, renew or changed
    for app, code in pairs(codes) do
        local old = store.code(address, app)
        has_others = has_others or old == nil
        if is_news(before, old) then
            note_change(address, watch, app, old, code)
        end
        changed = changed or old ~= code
        if (old ~= code or renew) and not store.keep_code(address, app, code) then
            complete = false
        end
    end
    if has_others and not keep_apps(address, codes) then
        complete = false
    end
    if changed then
        store.changed()
    end
    watch.written = renew and now() or watch.written
    return complete
end

-- A server that was silent, or whose Docker was away, has come back with all its apps; at the
-- gateway's own start none has.
local function note_return(address, codes)
    for app, code in pairs(codes) do
        if code == 0 then
            store.keep_risen(address, app)
        end
    end
end

local function set_state(address, state)
    local is_new = store.state(address) ~= state
    local has_room = store.keep_state(address, state)
    if is_new then
        store.changed()
    end
    return has_room
end

local function keep_codes(address, watch, codes, cut)
    local before = store.state(address)
    local was_faulty = before ~= nil and before > 0
    if was_faulty or before == nil and store.heard(address) then
        note_return(address, codes)
    end
    -- Before the verdicts, which may leave it no room.
    local has_room = before ~= nil or store.keep_state(address, store.partial)
    local complete = write_codes(address, watch, codes, before) and has_room
    watch.codes, watch.cut, watch.partial = codes, cut, cut or not complete
    set_state(address, watch.partial and store.partial or store.complete)
    if before == nil and has_room then
        log.say(address, ": ", UNKNOWN, " -> known: ", count(codes))
    elseif was_faulty then
        log.say(address, ": ", DOWN, " -> known: ", count(codes))
    end
    _M.say_risen(address, watch)
    if cut then
        log.complain("cut:" .. address,
            address .. ": lists more than " .. answers.max_apps .. " apps; the others are unknown")
    elseif not complete then
        log.complain("full",
            "the shared dictionary is full: make lua_shared_dict container_healthcheck larger")
    end
end

local function keep_fault(address, fault, text)
    local before = store.state(address)
    local is_new = set_state(address, fault) and before ~= fault
    if is_new then
        local from = before == nil and UNKNOWN or before > 0 and DOWN or "known"
        log.say(address, ": ", from, " -> ", DOWN, " for all apps, ", log.describe(fault), ": ", text)
    end
    return is_new == true
end

local function keep_error(address, watch, err)
    local text = log.printable(err)
    if store.state(address) ~= nil then
        log.say(address, ": known -> ", UNKNOWN, ": ", text)
        store.keep_error(address, text)
        store.changed()
    elseif store.heard(address) then
        if not (watch.complained or store.error(address)) then
            log.say(address, ": ", UNKNOWN, ": ", text)
        end
        store.keep_error(address, text)
    else
        log.complain("silent:" .. address, address .. ": " .. UNKNOWN .. ": " .. text)
        store.keep_error(address, text)
    end
    watch.complained = true
end

local function same(old, new)
    if not old then
        return false
    end
    for app, code in pairs(new) do
        if old[app] ~= code then
            return false
        end
    end
    for app in pairs(old) do
        if new[app] == nil then
            return false
        end
    end
    return true
end

-- True when it was news, nil and what is wrong when it was nonsense.
local function take_in(address, watch, answer)
    if answer.status == 304 and watch.codes then
        keep_codes(address, watch, watch.codes, watch.cut)
        return false
    end
    local heard, err = answers.understand(answer)
    if not heard then
        return nil, err
    elseif heard.fault then
        -- What it says once the fault is over is wanted at once, also when it is what it said before.
        watch.etag = nil
        return keep_fault(address, heard.fault, heard.text)
    end
    local news = not same(watch.codes, heard.codes)
    keep_codes(address, watch, news and heard.codes or watch.codes, heard.cut)
    watch.etag = answer.etag and #answer.etag <= MAX_ETAG and answer.etag or nil
    return news
end

function _M.new_watch()
    return { risen = {} }
end

-- Takes in an answer, or why there is none. Returns whether it was news; nil when nothing is known.
function _M.hear(address, watch, answer, err)
    local news
    if answer then
        news, err = take_in(address, watch, answer)
    end
    if news == nil then
        watch.etag = nil
        keep_error(address, watch, err)
    else
        watch.complained = nil
    end
    return news
end

return _M
