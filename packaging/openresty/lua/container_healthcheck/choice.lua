-- container-healthcheck 2.1.0: which of an app's servers a request is sent to.
-- Runs in the rewrite, balancer and log phases.
--
-- A worker works the choice out when something changed, and from time to time for what has run out
-- of time since; all requests until then only take the next turn. What belongs to that lies in the
-- list of servers itself, which this worker alone has:
--
--   version, made_at   of what all workers know when it was worked out
--   best               the servers that take turns, each with its share
--   turns, turn        whose turn it is, as far as it was needed yet, and the last one taken
--   cycle              after how many turns they begin again

local servers = require("container_healthcheck.servers")
local slow_start = require("container_healthcheck.slow_start")
local store = require("container_healthcheck.store")

local now, ipairs, min = ngx.now, ipairs, math.min
local version_at = store.version_at

local RENEW = 0.5 -- seconds
local MAX_TURNS = 4096

local UP, UNKNOWN, DOWN = "up", "unknown", "down"

local _M = { version = "2.1.0", up = UP, unknown = UNKNOWN, down = DOWN }

-- What is to be believed of an app, by what is known of the server and of the app on it.
function _M.state_of(state, code)
    if state == nil then
        return UNKNOWN
    elseif state > store.complete then
        return DOWN
    elseif code == nil then
        return state == store.partial and UNKNOWN or DOWN
    end
    return code == 0 and UP or DOWN
end

-- The smaller, the sooner: up, unknown, those that failed just now, down.
local RANKS = { [UP] = 0, [UNKNOWN] = 2, [DOWN] = 6 }
local FAILED_RANKS = { [UP] = 4, [UNKNOWN] = 4, [DOWN] = 8 }

local function rank_of(list, server)
    local address, app = server.address, list.app
    local code = store.code(address, app)
    local failed = store.has_failed(address, app)
        or (code == nil and not list.configured and store.has_failed(address, ""))
    local ranks = failed and FAILED_RANKS or RANKS
    server.choice = _M.state_of(store.state(address), code)
    return ranks[server.choice] + (server.backup and 1 or 0)
end

-- Gives each of the best servers its share: by weight, and less to one that has just come back
-- beside one that has not.
local function share_out(list, best)
    local seconds = slow_start.seconds()
    local warmest = 0
    for _, server in ipairs(best) do
        local risen = seconds > 0 and store.risen(server.address, list.app) or nil
        server.part = slow_start.share(risen, seconds)
        if server.part > warmest then
            warmest = server.part
        end
    end
    local all_are_new = warmest < slow_start.whole
    for _, server in ipairs(best) do
        server.share = server.weight * (all_are_new and slow_start.whole or server.part)
    end
end

local function divisor(one, other)
    while other > 0 do
        one, other = other, one % other
    end
    return one
end

-- After how many turns smooth weighted round robin begins again.
local function cycle_of(best)
    local total, common = 0, 0
    for _, server in ipairs(best) do
        total, common = total + server.share, divisor(server.share, common)
    end
    return min(total / common, MAX_TURNS)
end

local function is_as_before(list, best)
    if not list.best or #list.best ~= #best then
        return false
    end
    for index, server in ipairs(best) do
        if list.best[index] ~= server or server.had ~= server.share then
            return false
        end
    end
    return true
end

local function work_out(list, version, moment)
    local lowest, best = 99, {}
    for _, server in ipairs(list.servers) do
        server.rank = rank_of(list, server)
        if server.rank < lowest then
            lowest, best = server.rank, {}
        end
        if server.rank == lowest then
            best[#best + 1] = server
        end
    end
    share_out(list, best)
    if not is_as_before(list, best) then
        for _, server in ipairs(best) do
            server.had, server.current = server.share, 0
        end
        list.best, list.turns, list.turn, list.cycle = best, {}, 0, cycle_of(best)
    end
    list.version, list.made_at = version, moment
end

-- Smooth weighted round robin.
local function next_turn(best)
    local total, chosen = 0, nil
    for _, server in ipairs(best) do
        total = total + server.share
        server.current = server.current + server.share
        if not chosen or server.current > chosen.current then
            chosen = server
        end
    end
    chosen.current = chosen.current - total
    return chosen
end

-- Works the choice out again when that is due; true when it was. Also when the clock was set back.
local function renew(list)
    local moment = now()
    local version, age = version_at(moment), moment - list.made_at
    if version == list.version and age >= 0 and age < RENEW then
        return false
    end
    work_out(list, version, moment)
    return true
end

-- The server for a request, and whether the choice was worked out anew for it.
function _M.first(list)
    local is_new = renew(list)
    local turn = list.turn
    turn = turn < list.cycle and turn + 1 or 1
    list.turn = turn
    local server = list.turns[turn]
    if not server then
        server = next_turn(list.best)
        list.turns[turn] = server
    end
    return server, is_new
end

-- The server for a request after it was sent to those in vain whose addresses are in `tried`, in
-- that order: of those that were tried least the one of the best rank, and the next in the row.
function _M.another(list, tried)
    renew(list)
    local times, last = {}, 0
    for _, address in ipairs(tried) do
        times[address] = (times[address] or 0) + 1
    end
    for index, server in ipairs(list.servers) do
        if server.address == tried[#tried] then
            last = index
        end
    end
    local found, least
    for step = 1, #list.servers do
        local server = list.servers[(last + step - 1) % #list.servers + 1]
        local order = (times[server.address] or 0) * 100 + server.rank
        if not found or order < least then
            found, least = server, order
        end
    end
    return found
end

-- A request failed on that server: others come first for a while.
function _M.mark_failed(list, address)
    for _, server in ipairs(list.servers) do
        if server.address == address then
            store.keep_failed(address, servers.is_app(list) and list.app or "")
            return
        end
    end
end

return _M
