-- container-healthcheck 2.1.0: how many requests got what. Counted in each worker's own tables, in the
-- rewrite and balancer phases; a timer adds them to what all workers know.
--
-- A tally belongs to a list of servers, that is to an app. What finds no room stays in it.

local log = require("container_healthcheck.log")
local totals = require("container_healthcheck.totals")

local ngx, ipairs, pcall = ngx, ipairs, pcall

local EVERY = 1 -- seconds
local PATIENCE = 30 -- times that the requests of a name that is no app are looked at
local KINDS = { "up", "unknown", "down", "retries" }

local _M = { version = "2.1.0" }

local tallies, leaving, is_started = {}, {}, false
local stock = { requests = 0 }
_M.stock = stock

function _M.tally_of(list)
    local tally = { list = list, up = 0, unknown = 0, down = 0, retries = 0, waited = 0 }
    tallies[#tallies + 1] = tally
    return tally
end

-- The lists are made anew. What was counted for the old ones is added once more, and not longer kept.
function _M.begin_anew()
    for _, tally in ipairs(tallies) do
        leaving[#leaving + 1] = tally
    end
    tallies = {}
end

-- Made-up names must not fill the memory. But no server may have said yet what it lists.
local function wait(tally)
    tally.waited = tally.waited + 1
    if tally.waited > PATIENCE then
        tally.up, tally.unknown, tally.down, tally.retries, tally.waited = 0, 0, 0, 0, 0
    end
end

local function add_tally(tally, is_app)
    if tally.up + tally.unknown + tally.down + tally.retries == 0 then
        return
    end
    local app = tally.list.app
    if not (totals.counted_at(app) or is_app(tally.list)) then
        return wait(tally)
    elseif not totals.keep_counted(app) then
        return
    end
    tally.waited = 0
    for _, kind in ipairs(KINDS) do
        if tally[kind] > 0 and totals.add_count(app, kind, tally[kind]) then
            tally[kind] = 0
        end
    end
end

local function add_all(is_app)
    if stock.requests > 0 and totals.add_stock(stock.requests) then
        stock.requests = 0
    end
    for _, each in ipairs({ leaving, tallies }) do
        for _, tally in ipairs(each) do
            add_tally(tally, is_app)
        end
    end
    leaving = {}
end

-- Begins to add. `is_app` tells whether a list is that of an app. The timer runs once more, at once,
-- when the worker begins to exit.
function _M.start(is_app)
    if is_started then
        return
    end
    is_started = ngx.timer.every(EVERY, function()
        local ok, err = pcall(add_all, is_app)
        if not ok then
            log.complain("counts", "internal error: " .. log.printable(err))
        end
    end)
end

return _M
