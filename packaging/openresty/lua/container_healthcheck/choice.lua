-- container-healthcheck 2.1.0: which of an app's servers a request is sent to. Runs in the rewrite,
-- balancer and log phases.
--
-- A worker works the choice out when something changed, and from time to time for what has run out
-- of time since; requests until then only take the next turn. What belongs to that lies in the list
-- of servers itself, which this worker alone has:
--
--   version, made_at   of what all workers know when it was worked out
--   best               the servers that take turns, each with its share
--   turns, turn        whose turn it is, as far as it was needed yet, and the last one taken
--   cycle              after how many turns they begin again
--   common, is_stock   the state that all servers share, if any; that nginx takes its own turn by it
--   observe            requests are only observed
--   counts             of its requests, until they are added to what all workers know

local log = require("container_healthcheck.log")
local store = require("container_healthcheck.store")
local is_name = require("container_healthcheck.watch").is_name

local has_upstreams, upstreams = pcall(require, "ngx.upstream")

local ngx, now = ngx, ngx.now
local ipairs, pairs, type, tonumber, pcall = ipairs, pairs, type, tonumber, pcall
local floor, min, max = math.floor, math.min, math.max
local version_at = store.version_at

local RENEW = 0.5 -- seconds
local MAX_TURNS = 4096
local MAX_LISTS = 2500 -- per worker: more than a server may have apps
local STEPS = 10 -- of a slow start
local PATIENCE = 30 -- times that the counts of a name that is no app are looked at
local AT_ONCE = 50 -- apps between which other requests have their turn

local UP, UNKNOWN, DOWN = "up", "unknown", "down"

local OWN_UPSTREAM = "container_healthcheck_appo"

-- `is_observing`: some app is only observed.
local _M = {
    version = "2.1.0", up = UP, unknown = UNKNOWN, down = DOWN,
    has_upstreams = has_upstreams, is_observing = false,
}


-- The servers of an app, as the site's configuration names them

local function server_of(address, weight, backup)
    local host, port = address:match("^(.+):(%d+)$")
    if address:sub(1, 5) == "unix:" then
        host, port = address, nil
    elseif not host then
        host, port = address, "80"
        address = address .. ":80"
    end
    port = port and tonumber(port)
    return { address = address, host = host, port = port, weight = weight, backup = backup }
end

local function is_address(host, port)
    port = tonumber(port)
    if not port or port < 1 or port > 65535 then
        return false
    end
    local octets = { host:match("^(%d+)%.(%d+)%.(%d+)%.(%d+)$") }
    for _, octet in ipairs(octets) do
        if tonumber(octet) > 255 then
            return false
        end
    end
    return #octets == 4 or host:find("^%[[%x:.]+%]$") ~= nil
end

-- `$appo_servers`: addresses with ports, each with `*weight` behind it when that is not 1; `*0` takes a
-- server out.
local function given_servers(text)
    local servers = {}
    for item in text:gmatch("[^%s,]+") do
        local host, port, weight = item:match("^(.+):(%d+)%*?(%d*)$")
        weight = tonumber(weight) or 1
        if not host or not is_address(host, port) then
            log.complain("appo_servers", "$appo_servers: not an address and a port: " .. log.printable(item))
        elseif weight > 0 then
            servers[#servers + 1] = server_of(host .. ":" .. port, weight)
        end
    end
    return servers
end

-- nginx makes upstreams of its own for each proxy_pass to an address. They are no apps, and their
-- servers have no weight, which one that was written down always has. Nor is the module's own one.
local function upstream_servers(app)
    local servers = {}
    local own = app:lower() == OWN_UPSTREAM
    local ok, found = pcall(has_upstreams and not own and upstreams.get_servers or error, app)
    for _, each in ipairs(ok and found or {}) do
        local weight = each.weight or 1
        local is_usable = weight > 0 and not each.down
        local addresses = type(each.addr) == "table" and each.addr or { each.addr }
        for _, address in ipairs(is_usable and addresses or {}) do
            servers[#servers + 1] = server_of(address, weight, each.backup)
        end
    end
    return servers
end

-- Which role each server of the app's upstream has there, by address; nil when it has no upstream.
function _M.roles(app)
    local roles
    for _, server in ipairs(upstream_servers(app)) do
        roles = roles or {}
        roles[server.address] = server.backup and "BACKUP" or "PRIMARY"
    end
    return roles
end

-- By `$appo_servers`, "" when it is not set, and by app; those in use, those that leave; all addresses.
local lists, listed = {}, 0
local counting, leaving, addresses = {}, {}, {}

local function keep_list(given, app, servers, configured)
    if #servers == 0 then
        return nil
    end
    if listed >= MAX_LISTS then
        lists, listed, counting, leaving = {}, 0, {}, counting
    end
    local list = {
        app = app, servers = servers, configured = configured, made_at = 0, waited = 0,
        counts = { up = 0, unknown = 0, down = 0, retries = 0, elsewhere = 0, avoidable = 0 },
    }
    counting[#counting + 1] = list
    for _, server in ipairs(servers) do
        addresses[server.address] = true
    end
    lists[given] = lists[given] or {}
    lists[given][app], listed = list, listed + 1
    return list
end

local function make_list(app, given)
    if given == "" then
        return keep_list(given, app, upstream_servers(app), true)
    end
    -- Names that are none share a list, and what is made up never becomes a key.
    local name = is_name(app) and app:lower() ~= OWN_UPSTREAM and app or ""
    local kept = lists[given]
    return kept and kept[name] or keep_list(given, name, given_servers(given), false)
end

-- The list of an app, or nil when no server of it is known. Upstreams do not change while a worker
-- lives, so a list is made once.
function _M.list_of(app, given)
    given = given or ""
    local kept = lists[given]
    return kept and kept[app] or make_list(app, given)
end

-- Whether any list has had that server.
function _M.knows(address)
    return addresses[address] == true
end

-- The servers of all upstreams that may be those of apps. Runs in a timer.
function _M.configured()
    local found, seen = {}, {}
    local ok, names = pcall(has_upstreams and upstreams.get_upstreams or error)
    for index, name in ipairs(ok and names or {}) do
        if index % AT_ONCE == 0 then
            ngx.sleep(0)
        end
        for _, server in ipairs(name:find("^[a-z0-9][a-z0-9_-]*$") and upstream_servers(name) or {}) do
            if not seen[server.address] then
                seen[server.address] = true
                found[#found + 1] = server
            end
        end
    end
    return { servers = found }
end

-- An app is what the configuration names, or what a server lists; the rest was made up by somebody.
function _M.is_app(list)
    if list.configured then
        return true
    end
    for _, server in ipairs(list.servers) do
        local record = store.record(server.address)
        if record and record.apps[list.app] then
            return true
        end
    end
    return false
end


-- The ranks of the servers

-- What is to be considered of an app on the server with that record; and the code, when there is one.
function _M.state_of(record, is_valid, app)
    if not record or not is_valid then
        return UNKNOWN
    elseif record.state == "fault" then
        return DOWN, record.code
    elseif record.state ~= "known" then
        return UNKNOWN
    end
    local entry = record.apps[app]
    if not entry then
        return record.partial and UNKNOWN or DOWN
    end
    return entry[1] == 0 and UP or DOWN, entry[1]
end

-- The smaller, the sooner: up, unknown, those that failed just now, down; a backup after its likes.
local RANKS = { [UP] = 0, [UNKNOWN] = 2, [DOWN] = 6 }
local FAILED_RANKS = { [UP] = 4, [UNKNOWN] = 4, [DOWN] = 8 }

-- Foreign servers, of which nothing can be known, share the turns of the others: with those that are
-- up, or with unknown ones. Returns the state of all servers when they share it, and whether a request
-- has just failed on one.
local function rank(list)
    local app, has_any_failed = list.app, store.has_any_failed()
    local common, is_mixed, any_has_failed, best_rank = nil, false, false, RANKS[UNKNOWN]
    for _, server in ipairs(list.servers) do
        local address = server.address
        local record = store.record(address)
        local state, code = _M.state_of(record, store.is_valid(address), app)
        local has_failed = has_any_failed and (store.has_failed(address, app)
            or (code == nil and not list.configured and store.has_failed(address, "")))
        any_has_failed = any_has_failed or has_failed
        server.state = state
        server.is_foreign = record ~= nil and record.state == "foreign"
        server.rank = (has_failed and FAILED_RANKS or RANKS)[state] + (server.backup and 1 or 0)
        server.risen = record and record.apps[app] and record.apps[app][3]
        if server.rank == RANKS[UP] then
            best_rank = RANKS[UP]
        end
        is_mixed = is_mixed or (common ~= nil and common ~= state)
        common = state
    end
    for _, server in ipairs(list.servers) do
        if server.is_foreign and server.rank == RANKS[UNKNOWN] then
            server.rank = best_rank
        end
    end
    return not is_mixed and common or nil, any_has_failed
end

-- The share, from 1 to STEPS, of a server that came back at `risen`; nil when it never was away.
function _M.share(risen, seconds)
    local elapsed = risen and now() - risen
    if not elapsed or elapsed < 0 or elapsed >= seconds then
        return STEPS
    end
    return min(floor(elapsed / seconds * STEPS) + 1, STEPS)
end

-- Gives each of the best servers its share: by weight, and less to one that has just come back
-- beside one that has not.
local function share_out(best, slow_start)
    local warmest = 0
    for _, server in ipairs(best) do
        server.part = slow_start > 0 and _M.share(server.risen, slow_start) or STEPS
        warmest = max(warmest, server.part)
    end
    for _, server in ipairs(best) do
        server.share = server.weight * (warmest < STEPS and STEPS or server.part)
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

-- Requests that go to servers on which the app is down are visible: one line when that begins.
local function note_all_down(list, is_all_down)
    if is_all_down and not list.is_all_down and _M.is_app(list) and store.is_first("down:" .. list.app) then
        log.say(list.app, ": down on all of its servers: requests go to all of them")
    elseif not is_all_down and list.is_all_down ~= false then
        store.again("down:" .. list.app)
    end
    list.is_all_down = is_all_down
end

-- Only observes the requests of a list, until it is worked out again.
function _M.observe(list)
    list.observe, _M.is_observing = true, true
end

local function work_out(list, version, moment)
    local common, any_has_failed = rank(list)
    list.common = common
    list.is_stock = (common == UNKNOWN or common == DOWN) and not any_has_failed
    local lowest, best = 99, {}
    for _, server in ipairs(list.servers) do
        if server.rank < lowest then
            lowest, best = server.rank, {}
        end
        if server.rank == lowest then
            best[#best + 1] = server
        end
    end
    local var = ngx.var
    share_out(best, max(tonumber(var.container_healthcheck_slow_start) or 0, 0))
    list.observe = false
    if var.container_healthcheck_observe == "on" then
        _M.observe(list)
    end
    if not is_as_before(list, best) then
        for _, server in ipairs(best) do
            server.had, server.current = server.share, 0
        end
        list.best, list.turns, list.turn, list.cycle = best, {}, 0, cycle_of(best)
    end
    note_all_down(list, list.common == DOWN)
    list.version, list.made_at = version, moment
end

-- Works the choice out again when that is due; true when it was. Also when the clock was set back.
function _M.renew(list)
    local moment = now()
    local version, age = version_at(moment), moment - list.made_at
    if version == list.version and age >= 0 and age < RENEW then
        return false
    end
    work_out(list, version, moment)
    return true
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

-- The server for a request, by a list that is not old.
function _M.first(list)
    local turn = list.turn
    turn = turn < list.cycle and turn + 1 or 1
    list.turn = turn
    local server = list.turns[turn]
    if not server then
        server = next_turn(list.best)
        list.turns[turn] = server
    end
    return server
end

-- The server for a request after it was sent to those in vain whose addresses are in `tried`, in
-- that order: of those that were tried least the one of the best rank, and the next in the row.
function _M.another(list, tried)
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

-- The server of a list with that address, or nil.
function _M.server_at(list, address)
    for _, server in ipairs(list.servers) do
        if server.address == address then
            return server
        end
    end
    return nil
end

-- A request failed on that server: others come first for a while.
function _M.mark_failed(list, address)
    if _M.server_at(list, address) then
        store.keep_failed(address, _M.is_app(list) and list.app or "")
    end
end

-- A request that is only observed has ended; nginx had sent it to the server with that address first.
function _M.note_observed(list, address, has_failed)
    local server, best = _M.server_at(list, address), list.best[1]
    if not server then
        return
    end
    local counts = list.counts
    counts[server.state] = counts[server.state] + 1
    if list.common ~= UNKNOWN and list.common ~= DOWN and server.rank > best.rank then
        counts.elsewhere = counts.elsewhere + 1
        counts.avoidable = counts.avoidable + (has_failed and 1 or 0)
        log.complain("observe:" .. list.app .. ":" .. address, list.app .. ": only observed: requests to "
            .. address .. " would go to " .. best.address)
    end
end

local function add_counts(list)
    local counts, has_any = list.counts, false
    for _, number in pairs(counts) do
        has_any = has_any or number > 0
    end
    if not has_any then
        return
    elseif store.counted_at(list.app) or _M.is_app(list) then
        return store.add_counts(list.app, counts)
    end
    -- A made-up name, unless no server has said yet what it lists.
    list.waited = list.waited + 1
    for kind in pairs(list.waited > PATIENCE and counts or {}) do
        counts[kind], list.waited = 0, 0
    end
end

-- Adds what this worker has counted to what all workers know. Runs in a timer.
function _M.add_counts()
    local went = leaving
    leaving = {}
    for _, each in ipairs({ went, counting }) do
        for index, list in ipairs(each) do
            add_counts(list)
            if index % AT_ONCE == 0 then
                ngx.sleep(0)
            end
        end
    end
end

return _M
