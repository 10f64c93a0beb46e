-- container-healthcheck 2.1.0: watches the servers. Runs in timers, but for `ensure` and `want`.
--
-- Each worker has one loop, in a timer that runs for a minute and ends when its successor has begun:
-- nginx drops a timer for which it has no connection left, so the loop never depends on one that has
-- yet to begin. The loop takes the lease of every server that nobody watches and asks it in a light
-- thread of its own, one question after another. When a loop is lost all the same, requests and
-- spare timers notice that its beat is old, and begin another one.
--
-- A record is what is known of a server:
--   state     known, fault (it has no fresh snapshot), silent, or foreign (another program answers)
--   since     when that began
--   code      of the fault
--   error     what is wrong, in words
--   apps      by name: { code, since when, when it came back if it did }
--   partial   some apps are missing

local client = require("container_healthcheck.client")
local log = require("container_healthcheck.log")
local store = require("container_healthcheck.store")
local cjson = require("cjson.safe")

local ngx, now, is_over = ngx, ngx.now, store.is_over
local pairs, ipairs, type, pcall = pairs, ipairs, type, pcall
local min, max, floor = math.min, math.max, math.floor

local TICK, LOOK = 0.5, 1 -- how often the loop runs, and looks for servers that nobody watches
local RUN = 60 -- seconds after which a loop hands over: nginx frees what it used
local OLD_BEAT = 5 -- seconds after which a loop counts as lost
local LOST_THREAD = 20 -- ticks after which a thread counts as lost
local SPARE_TIMERS, SPARE_EVERY = 6, 10
local TOUCH = 10 -- how often a worker says that a server is still asked for
local SHORTEST_PAUSE, LONGEST_RUSH, LONGEST_PAUSE = 0.01, 0.1, 2
local UNKNOWN_PAUSE, FOREIGN_PAUSE = 10, 30 -- for servers that never answered as the service
-- An app that comes back may be up for one worker of the service and not yet for another: the log
-- says that it is up when it has been so for that long. Requests obey at once.
local SETTLED = 3
local NO_CONTAINER = 12
local MAX_APPS, MAX_NAME, MAX_ETAG = 2000, 128, 200

-- `housekeeping` is called about every second.
local _M = { version = "2.1.0", housekeeping = function() end }

-- What the worker that watches a server remembers of it: `record`, as it was written last; `etag`, of
-- what the server said; `rising`, what the log does not say yet, by app; `vanished`, apps that the
-- server listed once.
local memories = {}
local threads, ticks = {}, 0 -- at which tick the thread of an address was last seen
local pid, in_charge
local beat_at, begun_at = 0, 0
local has_new_server = true


-- What an answer says

function _M.is_name(name)
    return #name <= MAX_NAME and name:find("^[A-Za-z0-9][A-Za-z0-9_.-]*$") ~= nil
end

local function is_code(value)
    return type(value) == "number" and value >= 0 and value <= 999999 and value % 1 == 0
end

local function codes_in(message)
    local codes, count = {}, 0
    for app, code in pairs(message) do
        if type(app) ~= "string" or not _M.is_name(app) or not is_code(code) then
            return nil
        end
        count = count + 1
        if count <= MAX_APPS then
            codes[app] = code
        end
    end
    return codes, count > MAX_APPS
end

-- A table with `codes`, and `cut` when some were left out; or with `fault`, the code of a service
-- without a fresh snapshot; or with `error`, and `foreign` when another program answered.
local function understand(answer)
    local value, status = cjson.decode(answer.body), answer.status
    if type(value) ~= "table" or not is_code(value.code) then
        return {
            error = "status " .. status .. ", and not a container-healthcheck's JSON",
            foreign = status ~= 304 and status < 500,
        }
    elseif status == 503 and value.code > 0 then
        return { fault = value.code, error = log.printable(value.message) }
    elseif status ~= 200 or value.code ~= 0 or type(value.message) ~= "table" then
        return { error = "status " .. status .. ", code " .. value.code }
    end
    local codes, cut = codes_in(value.message)
    if not codes then
        return { error = "a list of verdicts that is none" }
    end
    return { codes = codes, cut = cut }
end


-- What of it is new goes into the store and, in words, into the log

local function say_risen(address, memory, all)
    for app, rising in pairs(memory.rising) do
        if all or is_over(rising.at, SETTLED) then
            memory.rising[app] = nil
            log.say(address, " ", app, ": ", rising.text)
        end
    end
end

-- `old` is nil for an app that the server did not list before.
local function note_change(address, memory, app, old, new)
    if old == nil and memory.vanished[app] then
        old = NO_CONTAINER
    end
    if new == 0 then
        memory.rising[app] = { at = now(), text = old == nil and "new, up" or "down -> up" }
    elseif memory.rising[app] and old == 0 then
        memory.rising[app] = nil
    elseif old == 0 then
        log.say(address, " ", app, ": up -> down, ", log.describe(new))
    elseif old == nil then
        log.say(address, " ", app, ": new, down, ", log.describe(new))
    end
end

local function write(address, memory, record)
    memory.record = record
    if not store.keep_record(address, record) then
        log.complain_of_memory()
        store.keep_record(address, { state = record.state, since = record.since, code = record.code,
            error = record.error, partial = true, apps = {} })
    end
    store.changed()
end

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

-- The apps after an answer, and whether they differ from those before. `is_back`: the server was
-- silent, or without Docker; nobody knows what its apps did meanwhile.
local function apps_after(address, memory, codes, is_back)
    local before, moment = memory.record, now()
    local was_known = before.state == "known"
    local was_complete = was_known and not before.partial
    local apps, differ = {}, false
    for app, code in pairs(codes) do
        local old = before.apps[app]
        local is_same = old ~= nil and old[1] == code
        if is_same and not (is_back and code == 0) then
            apps[app] = old
        else
            local rises = code == 0 and (is_back or was_known and (old ~= nil or was_complete))
            apps[app] = { code, is_same and old[2] or floor(moment), rises and moment or nil }
            differ = true
            if was_known and (old ~= nil or was_complete) then
                note_change(address, memory, app, old and old[1], code)
            end
        end
    end
    for app, old in pairs(before.apps) do
        if codes[app] == nil then
            differ = true
            if was_complete then
                note_change(address, memory, app, old[1], NO_CONTAINER)
                memory.vanished[app] = true
            end
        end
    end
    return apps, differ
end

local function receive_codes(address, memory, codes, cut)
    local before = memory.record
    local was = before.state
    local is_back = was ~= "known" and store.answered(address) ~= nil
    local apps, differ = apps_after(address, memory, codes, is_back)
    store.keep_valid(address, true)
    if differ or was ~= "known" or before.partial ~= cut then
        local since = was == "known" and before.since or floor(now())
        write(address, memory, { state = "known", since = since, apps = apps, partial = cut })
    end
    if was ~= "known" then
        log.say(address, ": ", was == "fault" and "down" or "unknown", " -> known: ", count(codes))
    end
    if cut then
        log.complain("cut:" .. address,
            address .. ": lists more than " .. MAX_APPS .. " apps; the others are unknown")
    end
    return differ
end

local function receive_fault(address, memory, code, text)
    local before = memory.record
    local is_new = before.state ~= "fault" or before.code ~= code
    store.keep_valid(address, true)
    if is_new then
        local from = before.state == "known" and "known" or before.state == "fault" and "down" or "unknown"
        log.say(address, ": ", from, " -> down for all apps, ", log.describe(code), ": ", text)
        write(address, memory, { state = "fault", code = code, error = text, since = floor(now()),
            apps = before.apps, partial = before.partial })
    end
    return is_new
end

local function receive_error(address, memory, text, is_foreign)
    local before = memory.record
    local has_answered = store.answered(address) ~= nil
    -- What was an APPO server is one, whatever answers there for now.
    local state = is_foreign and not has_answered and "foreign" or "silent"
    text = log.printable(text)
    store.drop_valid(address)
    if before.state ~= state or before.error ~= text then
        if before.state == "known" or before.state == "fault" then
            log.say(address, ": ", before.state == "known" and "known" or "down", " -> unknown: ", text)
        elseif state == "foreign" then
            log.complain("foreign:" .. address,
                address .. ": not an APPO server, so nginx's own turn is kept: " .. text)
        elseif not before.state then
            log.complain("silent:" .. address, address .. ": unknown: " .. text)
        end
        write(address, memory, { state = state, error = text, apps = before.apps, partial = before.partial,
            since = before.state == state and before.since or floor(now()) })
    end
end

-- Takes an answer, or why there is none. Returns whether a verdict has changed; nil when nothing is known.
local function receive(address, memory, answer, err)
    if answer and answer.status == 304 and memory.etag then
        store.keep_valid(address, true)
        say_risen(address, memory)
        return false
    end
    local said = answer and understand(answer) or { error = err }
    memory.etag = nil
    if said.codes then
        -- No ETag after a fault: the verdicts are wanted at once when it is over, changed or not.
        memory.etag = answer.etag and #answer.etag <= MAX_ETAG and answer.etag or nil
        local has_changed = receive_codes(address, memory, said.codes, said.cut)
        say_risen(address, memory)
        return has_changed
    elseif said.fault then
        return receive_fault(address, memory, said.fault, said.error)
    end
    return receive_error(address, memory, said.error, said.foreign)
end


-- One server

local function memory_of(address)
    local record = store.record(address) or { apps = {} }
    if not store.is_valid(address) and (record.state == "known" or record.state == "fault") then
        record = { state = "silent", since = record.since, apps = record.apps, partial = record.partial }
    end
    return { record = record, rising = {}, vanished = {}, failures = 0 }
end

-- The pause before the next question: changes may follow each other closely, but not without end; a
-- service that does not wait is asked every two seconds, and so is one that fails.
local function pause_after(address, memory, has_changed, elapsed)
    if has_changed == nil then
        memory.failures = min(memory.failures + 1, 10)
        local longest = memory.record.state == "foreign" and FOREIGN_PAUSE
            or store.answered(address) and LONGEST_PAUSE or UNKNOWN_PAUSE
        return memory.record.state == "foreign" and longest or min(0.25 * 2 ^ memory.failures, longest)
    end
    memory.failures = 0
    if has_changed then
        memory.rush = min((memory.rush or SHORTEST_PAUSE / 2) * 2, LONGEST_RUSH)
        return memory.rush
    end
    memory.rush = nil
    -- The clock may have been set back meanwhile.
    return min(client.wait, max(0, client.wait - elapsed))
end

local function ask(address, memory)
    ngx.update_time()
    local began = now()
    local answer, err = client.ask(address, memory.etag)
    if store.watcher(address) ~= pid then
        -- This worker was frozen: another one knows better by now.
        return 0
    end
    local has_changed = receive(address, memory, answer, err)
    ngx.update_time()
    return pause_after(address, memory, has_changed, now() - began)
end

-- Whether the thread of that loop goes on with the server, and keeps the lease for it.
local function goes_on(address, loop)
    threads[address] = ticks
    return in_charge == loop and not ngx.worker.exiting() and store.renew_lease(address, pid)
end

local function rest(address, loop, seconds)
    repeat
        local part = min(seconds, TICK)
        ngx.sleep(part)
        seconds = seconds - part
    until seconds <= 0 or not goes_on(address, loop)
end

local function watch(address, loop)
    while goes_on(address, loop) and store.is_wanted(address) do
        local memory = memories[address] or memory_of(address)
        memories[address] = memory
        local ok, pause = pcall(ask, address, memory)
        if not ok then
            log.internal_error("watch", pause)
            pause = LONGEST_PAUSE
        end
        if goes_on(address, loop) then
            rest(address, loop, pause)
        end
    end
end

-- When only the loop changes, lease and memory stay.
local function release(address)
    local memory, is_mine = memories[address], store.watcher(address) == pid
    if is_mine and not store.is_wanted(address) then
        store.forget(address)
    elseif is_mine and not ngx.worker.exiting() then
        return
    elseif is_mine and memory then
        say_risen(address, memory, true)
    end
    memories[address] = nil
    store.give_lease_back(address, pid)
end

local function run_thread(address, loop)
    local ok, err = pcall(watch, address, loop)
    if not ok then
        log.internal_error("watch", err)
    end
    threads[address] = nil
    release(address)
end


-- The loop

local function take_over(loop)
    for _, address in ipairs(store.addresses()) do
        local seen = threads[address]
        if not (seen and ticks - seen < LOST_THREAD) and store.take_lease(address, pid) then
            threads[address] = ticks
            ngx.thread.spawn(run_thread, address, loop)
        end
    end
end

local function tick(loop)
    ticks = ticks + 1
    if has_new_server or is_over(loop.looked_at, LOOK) then
        has_new_server, loop.looked_at = false, now()
        take_over(loop)
        _M.housekeeping()
    end
end

local run

-- The successor takes charge when it begins, which nginx does not promise.
local function hand_over(loop)
    if is_over(loop.began, RUN) and is_over(loop.called, OLD_BEAT) then
        loop.called = now()
        ngx.timer.at(0, run)
    end
end

function run(premature)
    if premature then
        return
    end
    local loop = { began = now(), looked_at = 0, called = 0 }
    in_charge = loop
    while in_charge == loop and not ngx.worker.exiting() do
        beat_at = now()
        local ok, err = pcall(tick, loop)
        if not ok then
            log.internal_error("loop", err)
        end
        hand_over(loop)
        ngx.sleep(TICK)
    end
    if ngx.worker.exiting() then
        pcall(_M.housekeeping)
    end
end

-- Begins the loop when there is none, or when it was lost. May be called in every phase.
local function ensure()
    if is_over(beat_at, OLD_BEAT) and is_over(begun_at, 1) and not ngx.worker.exiting() then
        begun_at = now()
        pid = ngx.worker.pid()
        ngx.timer.at(0, run)
    end
end
_M.ensure = ensure

local function spare(premature)
    if not premature and not ngx.worker.exiting() then
        ngx.timer.at(SPARE_TIMERS * SPARE_EVERY, spare)
        ensure()
    end
end

-- For init_worker_by_lua.
function _M.start()
    for number = 1, SPARE_TIMERS do
        ngx.timer.at(number * SPARE_EVERY, spare)
    end
    ensure()
end

-- Says that requests ask for the servers of a list; for all phases.
function _M.want(list)
    if list.wanted_at and not is_over(list.wanted_at, TOUCH) then
        return
    end
    list.wanted_at = now()
    for _, server in ipairs(list.servers) do
        local ok, err = store.want(server.address)
        if err == "full" then
            log.complain("servers",
                "more than " .. store.max_servers .. " servers: the others are not watched")
        elseif not ok then
            log.complain_of_memory()
        end
    end
    has_new_server = true
end

return _M
