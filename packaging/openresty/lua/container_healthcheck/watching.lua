-- container-healthcheck 2.1.0: which worker watches which server, and when it asks. Runs in timers;
-- what requests call is said to. One question to a server after another, each in a timer of its own.

local client = require("container_healthcheck.client")
local clock = require("container_healthcheck.clock")
local log = require("container_healthcheck.log")
local news = require("container_healthcheck.news")
local store = require("container_healthcheck.store")

local ngx = ngx
local now, ipairs, pcall, min, max = ngx.now, ipairs, pcall, math.min, math.max

local TICK = 0.1 -- how often a worker looks for servers that nobody watches
local TOUCH = 10 -- how often a worker says that a server is still asked for
local TRIAL = 30 -- seconds in which a server must have answered once
local LEAST_TRIAL = 4 -- the same while others wait for its place: one whole question, and a bit
local SHORTEST_PAUSE, LONGEST_RUSH, LONGEST_PAUSE = 0.01, 0.1, 2

local _M = { version = "2.1.0" }

local watches = {}
local pid

-- The pause before the next question: news may come thick and fast, but not in a circle; a service
-- that does not wait is asked every two seconds, and so is one that fails.
local function pause_after(watch, is_news, elapsed)
    if is_news == nil then
        watch.failures = min((watch.failures or 0) + 1, 5)
        return min(0.25 * 2 ^ watch.failures, LONGEST_PAUSE)
    end
    watch.failures = 0
    if is_news then
        watch.rush = min((watch.rush or SHORTEST_PAUSE / 2) * 2, LONGEST_RUSH)
        return watch.rush
    end
    watch.rush = nil
    -- The clock may have been set back meanwhile.
    return min(client.wait, max(0, client.wait - elapsed))
end

local function poll(address, watch)
    ngx.update_time()
    local began = now()
    local answer, err = client.ask(address, watch.etag)
    if store.watcher(address) ~= pid then
        -- This worker was frozen: another one knows better by now.
        return 0
    end
    local is_news = news.hear(address, watch, answer, err)
    ngx.update_time()
    return pause_after(watch, is_news, now() - began)
end

local function release(address)
    if store.watcher(address) == pid then
        news.say_risen(address, watches[address], true)
    end
    watches[address] = nil
    store.give_lease_back(address, pid)
end

local function is_stranger(address)
    local since = store.on_trial_since(address)
    return since ~= nil and clock.is_over(since, TRIAL)
end

local watch_on

local function watch_once(address)
    if ngx.worker.exiting() or not store.renew_lease(address, pid) then
        return release(address)
    elseif is_stranger(address) then
        store.dismiss(address)
    end
    if not store.is_placed(address) then
        store.forget(address)
        return release(address)
    end
    local ok, pause = pcall(poll, address, watches[address])
    if not ok then
        log.complain("poll", "internal error: " .. log.printable(pause))
        pause = LONGEST_PAUSE
    end
    store.renew_lease(address, pid)
    if ngx.worker.exiting() or not ngx.timer.at(pause, watch_on, address) then
        release(address)
    end
end

function watch_on(premature, address)
    if premature then
        release(address)
    else
        watch_once(address)
    end
end

local function take_over()
    for number = 1, store.max_servers do
        local address = store.placed(number)
        if address and not watches[address] and store.take_lease(address, pid) then
            watches[address] = news.new_watch()
            if not ngx.timer.at(0, watch_on, address) then
                release(address)
            end
        end
    end
end

local function tick(premature)
    if premature or ngx.worker.exiting() then
        return
    end
    local ok, err = pcall(take_over)
    if not ok then
        log.complain("tick", "internal error: " .. log.printable(err))
    end
end

-- Begins to look for servers to watch; for init_worker_by_lua, and done by the first request else.
function _M.start()
    -- When the site's own Lua has taken all timers, the next request tries again.
    if not pid and ngx.timer.every(TICK, tick) then
        pid = ngx.worker.pid()
        store.prepare()
    end
end

-- Says that requests ask for these servers; runs in the rewrite and balancer phases.
function _M.touch(list)
    if list.touched_at and not clock.is_over(list.touched_at, TOUCH) then
        return
    end
    list.touched_at = now()
    for _, server in ipairs(list.servers) do
        local ok, err = store.keep_place(server.address, LEAST_TRIAL)
        if err == "full" then
            log.complain("servers",
                "more than " .. store.max_servers .. " servers: the others are not watched")
        elseif not ok then
            log.complain("full",
                "the shared dictionary is full: make lua_shared_dict container_healthcheck larger")
        end
    end
end

return _M
