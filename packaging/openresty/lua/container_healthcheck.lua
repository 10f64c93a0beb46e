-- Sends each user request to an APPO server on which the app serves.
--
-- One worker waits for news from each APPO server, in a timer; what it hears lies in a shared
-- dictionary; a user request only reads that. Nothing here may ever stop a request: whatever goes
-- wrong, the request takes the way it would take without this module.
--
-- Runs on lua-nginx-module 0.10.15 and later, with nothing but what OpenResty bundles. Times are in
-- seconds.

local has_cjson, cjson = pcall(require, "cjson.safe")
local has_upstreams, upstreams = pcall(require, "ngx.upstream")
local has_balancer, balancer = pcall(require, "ngx.balancer")

local ngx = ngx
local now, log, ERR = ngx.now, ngx.log, ngx.ERR
local pairs, ipairs, type, tostring, pcall = pairs, ipairs, type, tostring, pcall
local min, max, floor = math.min, math.max, math.floor

local _M = {}

local LIST_PATH = "/container-healthcheck/apps/health"
local WAIT = 2 -- how long a service may hold its answer back
local DEADLINE = WAIT + 1 -- the longest time one question may take
local VALID = 5 -- how long an answer counts without another one
local LEASE = 6 -- after which another worker may watch a server whose watcher is silent
local TICK = 0.1 -- how often a worker looks for servers that nobody watches
local FORGET = 600 -- after which a server that no request asked for is watched no more
local TOUCH = 10 -- how often a worker says that a server is still asked for
local VERDICT_VALID, VERDICT_RENEW = 60, 20
local FAILED_FOR = 2 -- how long a server is tried last after a failed request
local SHORTEST_PAUSE, LONGEST_RUSH, LONGEST_PAUSE = 0.01, 0.1, 2
local COMPLAIN_AGAIN = 3600

local MAX_SERVERS = 64
local MAX_APPS = 2000 -- per server
local MAX_LISTS = 1000 -- per worker
local MAX_APP = 128
local MAX_LINE, MAX_HEADERS, MAX_BODY = 8192, 100, 1024 * 1024

local UP, UNKNOWN, DOWN = "up", "unknown", "down"
-- What the dictionary says of a whole server: one of these, or the code of its fault (above 0).
local COMPLETE, PARTIAL = 0, -1
local NO_CONTAINER = 12

local REASONS = {
    [10] = "cannot connect to Docker",
    [11] = "Docker does not answer properly",
    [12] = "no container",
    [13] = "no healthy container",
    [14] = "the app does not answer",
    [15] = "drained",
}

local dict = ngx.shared.container_healthcheck
local pid = ngx.worker.pid()

-- Without its entry file, nginx would answer 502 to every request for our upstream.
local function has_entry()
    local folder = debug.getinfo(1, "S").source:match("^@(.*/)") or ""
    local file = io.open(folder .. "appo_balancer.lua")
    return file ~= nil and file:close()
end

local can_balance = has_balancer and has_entry()

-- True also when the clock was set back.
local function is_over(since, seconds)
    local elapsed = now() - since
    return elapsed < 0 or elapsed >= seconds
end


-- Telling the operator

local complained = {}

local function say(...)
    log(ERR, "container-healthcheck: ", ...)
end

-- Says something that would otherwise be said for every request: once an hour for all workers.
local function complain(about, text)
    local last = complained[about]
    if last and not is_over(last, COMPLAIN_AGAIN) then
        return
    end
    complained[about] = now()
    if dict then
        local _, err = dict:safe_add("complained:" .. about, true, COMPLAIN_AGAIN)
        if err == "exists" then
            return
        end
    end
    say(text)
end

local function describe(code)
    return "code " .. code .. (REASONS[code] and " (" .. REASONS[code] .. ")" or "")
end

local function printable(text)
    return (tostring(text):sub(1, 200):gsub("[^\32-\126]", "?"))
end


-- The servers of an app

local lists, listed = {}, 0

local function is_app(name)
    return #name <= MAX_APP and name:find("^[A-Za-z0-9][A-Za-z0-9_.-]*$") ~= nil
end

local function server_of(address, app, weight, backup)
    local host, port = address:match("^(.+):(%d+)$")
    if address:sub(1, 5) == "unix:" then
        host, port = address, nil
    elseif not host then
        host, port = address, "80"
        address = address .. ":80"
    end
    return {
        address = address,
        host = host,
        port = port and tonumber(port),
        weight = weight,
        backup = backup,
        current = 0,
        state_key = "state:" .. address,
        verdict_key = "verdict:" .. address .. "/" .. app,
        failed_key = "failed:" .. address .. "/" .. app,
        -- Apps that no server lists share one key, so that made-up names cannot fill the memory.
        unlisted_key = "failed:" .. address .. "/",
    }
end

local function is_address(host, port)
    port = tonumber(port)
    if not port or port < 1 or port > 65535 then
        return false
    end
    return host:find("^%d+%.%d+%.%d+%.%d+$") ~= nil or host:find("^%[[%x:.]+%]$") ~= nil
end

-- `$appo_servers`: addresses with ports, each with `*weight` behind it when it is not 1.
local function given_servers(text, app)
    local servers = {}
    for item in text:gmatch("[^%s,]+") do
        local host, port, weight = item:match("^(.+):(%d+)%*?(%d*)$")
        if host and is_address(host, port) then
            servers[#servers + 1] = server_of(host .. ":" .. port, app, max(tonumber(weight) or 1, 1))
        else
            complain("appo_servers", "$appo_servers: not an address and a port: " .. printable(item))
        end
    end
    return servers
end

local function upstream_servers(app)
    local found = has_upstreams and upstreams.get_servers(app)
    local servers = {}
    for _, each in ipairs(found or {}) do
        local addresses = type(each.addr) == "table" and each.addr or { each.addr }
        for _, address in ipairs(each.down and {} or addresses) do
            servers[#servers + 1] = server_of(address, app, each.weight or 1, each.backup)
        end
    end
    return servers
end

local function keep_list(given, app, servers, configured)
    if #servers == 0 then
        return nil
    end
    if listed >= MAX_LISTS then
        lists, listed = {}, 0
    end
    local list = { servers = servers, configured = configured, touched = -TOUCH }
    lists[given] = lists[given] or {}
    lists[given][app], listed = list, listed + 1
    return list
end

local function make_list(given, app)
    if given == "" then
        return keep_list(given, app, upstream_servers(app), true)
    end
    -- Names that are none share a list, and what is made up never becomes a key.
    local name = is_app(app) and app or ""
    local kept = lists[given]
    return kept and kept[name] or keep_list(given, name, given_servers(given, name), false)
end

-- The list of an app, or nil when no server of it is known. Upstreams do not change while a worker
-- lives, so a list is made once.
local function list_of(app, given)
    given = given or ""
    local kept = lists[given]
    return kept and kept[app] or make_list(given, app)
end


-- The choice

local function has_failed(list, server, code)
    if dict:get(server.failed_key) then
        return true
    end
    return code == nil and not list.configured and dict:get(server.unlisted_key) ~= nil
end

local function state_of(state, code)
    if state == nil then
        return UNKNOWN
    elseif state > 0 then
        return DOWN
    elseif code == nil then
        return state == PARTIAL and UNKNOWN or DOWN
    end
    return code == 0 and UP or DOWN
end

local RANKS = { [UP] = 0, [UNKNOWN] = 2, [DOWN] = 6 }
local FAILED_RANKS = { [UP] = 4, [UNKNOWN] = 4, [DOWN] = 8 }

-- The smaller, the sooner: up, unknown, those that failed just now, down.
local function rank_of(list, server)
    local code = dict:get(server.verdict_key)
    local state = state_of(dict:get(server.state_key), code)
    local ranks = has_failed(list, server, code) and FAILED_RANKS or RANKS
    return ranks[state] + (server.backup and 1 or 0)
end

-- Smooth weighted round robin over the servers of the best rank; returns the index.
local function pick(servers, best)
    local total, chosen = 0, nil
    for index, server in ipairs(servers) do
        if server.rank == best then
            total = total + server.weight
            server.current = server.current + server.weight
            if not chosen or server.current > servers[chosen].current then
                chosen = index
            end
        end
    end
    servers[chosen].current = servers[chosen].current - total
    return chosen
end

-- All servers in the order in which this request may try them.
local function arrange(list)
    local servers = list.servers
    local best = 99
    for _, server in ipairs(servers) do
        server.rank = rank_of(list, server)
        best = min(best, server.rank)
    end
    local chosen = pick(servers, best)
    local order = { servers[chosen] }
    for step = 1, #servers - 1 do
        local server = servers[(chosen + step - 1) % #servers + 1]
        local place = #order + 1
        while place > 2 and order[place - 1].rank > server.rank do
            order[place] = order[place - 1]
            place = place - 1
        end
        order[place] = server
    end
    return order
end

local function is_listed(list)
    for _, server in ipairs(list.servers) do
        if dict:get(server.verdict_key) then
            return true
        end
    end
    return false
end

local function mark_failed(list, server)
    local own_key = list.configured or is_listed(list)
    dict:safe_set(own_key and server.failed_key or server.unlisted_key, true, FAILED_FOR)
end


-- Asking a service: the least of HTTP/1.1 that serves, bounded in time and in size

local Reader = {}
Reader.__index = Reader

function Reader:limit()
    ngx.update_time()
    local left = self.deadline - now()
    if left <= 0 then
        return nil, "no answer in time"
    end
    self.socket:settimeout(max(floor(min(left, DEADLINE) * 1000), 1))
    return true
end

function Reader:more()
    local ok, err = self:limit()
    if not ok then
        return nil, err
    end
    local data
    data, err = self.socket:receiveany(65536)
    if not data then
        return nil, err == "timeout" and "no answer in time" or err
    end
    return data
end

function Reader:line()
    while true do
        local last = self.buffer:find("\n", 1, true)
        if last then
            local line = self.buffer:sub(1, last - 1):gsub("\r$", "")
            self.buffer = self.buffer:sub(last + 1)
            return line
        elseif #self.buffer > MAX_LINE then
            return nil, "not HTTP"
        end
        local data, err = self:more()
        if not data then
            return nil, err
        end
        self.buffer = self.buffer .. data
    end
end

-- Exactly `size` bytes; nil for everything until the end.
function Reader:take(size)
    local parts, length = { self.buffer }, #self.buffer
    while length < (size or MAX_BODY + 1) do
        local data, err = self:more()
        if not data and err == "closed" and not size then
            break
        elseif not data then
            return nil, err
        end
        parts[#parts + 1], length = data, length + #data
    end
    local all = table.concat(parts)
    size = size or #all
    self.buffer = all:sub(size + 1)
    return all:sub(1, size)
end

function Reader:headers()
    local headers = {}
    for _ = 1, MAX_HEADERS do
        local line, err = self:line()
        if not line then
            return nil, err
        elseif line == "" then
            return headers
        end
        local name, value = line:match("^([^:%s]+):%s*(.-)%s*$")
        if name then
            headers[name:lower()] = value
        end
    end
    return nil, "too many headers"
end

function Reader:chunks()
    local parts, length = {}, 0
    while true do
        local line, err = self:line()
        local digits = line and line:match("^%x+")
        if not digits or #digits > 7 then
            return nil, err or "a chunk without a size"
        end
        local size = tonumber(digits, 16)
        length = length + size
        if size == 0 then
            return table.concat(parts)
        elseif length > MAX_BODY then
            return nil, "too long an answer"
        end
        parts[#parts + 1], err = self:take(size)
        if not parts[#parts] or not self:line() then
            return nil, err or "half an answer"
        end
    end
end

function Reader:body(headers)
    if (headers["transfer-encoding"] or ""):lower():find("chunked", 1, true) then
        return self:chunks()
    end
    local length = headers["content-length"]
    length = length and (tonumber(length:match("^%d+$")) or MAX_BODY + 1)
    if length and length > MAX_BODY then
        return nil, "too long an answer"
    end
    local body, err = self:take(length)
    if body and #body > MAX_BODY then
        return nil, "too long an answer"
    end
    return body, err
end

local function request_for(address, etag)
    return "GET " .. LIST_PATH .. " HTTP/1.1\r\nHost: " .. (address:match("^unix:") and "localhost" or address)
        .. "\r\nUser-Agent: container-healthcheck-gateway\r\nAccept: application/json\r\n"
        .. "Prefer: wait=" .. WAIT .. "\r\n"
        .. (etag and "If-None-Match: " .. etag .. "\r\n" or "")
        .. "Connection: close\r\n\r\n"
end

local function connect(socket, address)
    if address:sub(1, 5) == "unix:" then
        return socket:connect(address)
    end
    local host, port = address:match("^(.+):(%d+)$")
    return socket:connect(host, tonumber(port))
end

local function exchange(reader, address, etag)
    local ok, err = reader:limit()
    if not ok then
        return nil, err
    end
    ok, err = connect(reader.socket, address)
    if not ok then
        return nil, err == "timeout" and "no connection in time" or err
    end
    ok, err = reader.socket:send(request_for(address, etag))
    if not ok then
        return nil, err
    end
    local line
    line, err = reader:line()
    local status = line and tonumber(line:match("^HTTP/1%.%d (%d%d%d)"))
    if not status then
        return nil, err or "not HTTP"
    end
    local headers
    headers, err = reader:headers()
    if not headers then
        return nil, err
    elseif status == 304 then
        return { status = status, etag = etag }
    end
    local body
    body, err = reader:body(headers)
    if not body then
        return nil, err
    end
    return { status = status, etag = headers.etag, body = body }
end

-- One question. Returns the answer, or nil and what went wrong.
local function ask(address, etag)
    ngx.update_time()
    local reader = setmetatable(
        { socket = ngx.socket.tcp(), deadline = now() + DEADLINE, buffer = "" }, Reader)
    local answer, err = exchange(reader, address, etag)
    reader.socket:close()
    return answer, err
end


-- Understanding an answer

local function is_code(value)
    return type(value) == "number" and value >= 0 and value <= 999999 and value % 1 == 0
end

-- The codes of all apps, how many were too many, or nil when they are not codes.
local function codes_in(message)
    local codes, count = {}, 0
    for app, code in pairs(message) do
        if type(app) ~= "string" or not is_app(app) or not is_code(code) then
            return nil
        end
        count = count + 1
        if count <= MAX_APPS then
            codes[app] = code
        end
    end
    return codes, count > MAX_APPS
end

local function decode(body)
    if not has_cjson then
        complain("cjson", "the Lua library cjson is missing: no verdict can be read")
        return nil
    end
    local ok, value = pcall(cjson.decode, body)
    return ok and type(value) == "table" and value or nil
end

-- What an answer says: a table with `codes` (and `cut` when some were left out), or with `fault`,
-- the code of a service that has no picture of its host; or nil and what is wrong with it.
local function understand(answer)
    local value = decode(answer.body)
    if not value or not is_code(value.code) then
        return nil, "status " .. answer.status .. ", and not a container-healthcheck's JSON"
    elseif answer.status == 503 and value.code > 0 then
        return { fault = value.code, text = printable(value.message) }
    elseif answer.status ~= 200 or value.code ~= 0 or type(value.message) ~= "table" then
        return nil, "status " .. answer.status .. ", code " .. value.code
    end
    local codes, cut = codes_in(value.message)
    if not codes then
        return nil, "a list of verdicts that is none"
    end
    return { codes = codes, cut = cut }
end


-- Keeping what was heard

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

local function say_verdict(address, app, old, new)
    if (old == 0) ~= (new == 0) then
        local from = old == 0 and UP or DOWN
        say(address, " ", app, ": ", from, " -> ", new == 0 and UP or DOWN .. ", " .. describe(new))
    end
end

-- Which apps of a server the dictionary knows, for a watcher that has just begun.
local function kept_apps(prefix)
    local apps = {}
    for _, key in ipairs(dict:get_keys(0)) do
        if key:sub(1, #prefix) == prefix then
            apps[key:sub(#prefix + 1)] = true
        end
    end
    return apps
end

local function drop_vanished(address, watch, codes, tell)
    local prefix = "verdict:" .. address .. "/"
    for app in pairs(watch.codes or kept_apps(prefix)) do
        if codes[app] == nil then
            if tell then
                say_verdict(address, app, dict:get(prefix .. app), NO_CONTAINER)
            end
            dict:delete(prefix .. app)
        end
    end
end

-- Writes what changed, and everything from time to time. True when all of it found room.
local function write_codes(address, watch, codes, before)
    local renew = not watch.written or is_over(watch.written, VERDICT_RENEW)
    if codes == watch.codes and not renew then
        return not watch.partial
    end
    drop_vanished(address, watch, codes, before == COMPLETE)
    local complete = true
    for app, code in pairs(codes) do
        local key = "verdict:" .. address .. "/" .. app
        local old = dict:get(key)
        if before == COMPLETE or (before == PARTIAL and old ~= nil) then
            say_verdict(address, app, old, code)
        end
        if (old ~= code or renew) and not dict:safe_set(key, code, VERDICT_VALID) then
            complete = false
        end
    end
    watch.written = renew and now() or watch.written
    return complete
end

-- True when there was room for it.
local function set_state(address, state)
    dict:safe_set("heard:" .. address, now(), FORGET)
    dict:delete("error:" .. address)
    return dict:safe_set("state:" .. address, state, VALID)
end

local function keep_codes(address, watch, codes, cut)
    local before = dict:get("state:" .. address)
    -- Before the verdicts, which may leave it no room.
    local has_room = before ~= nil or set_state(address, PARTIAL)
    local complete = write_codes(address, watch, codes, before) and has_room
    if before == nil and has_room then
        say(address, ": ", UNKNOWN, " -> known: ", count(codes))
    elseif before ~= nil and before > 0 then
        say(address, ": ", DOWN, " -> known: ", count(codes))
    end
    watch.codes, watch.partial = codes, cut or not complete
    set_state(address, watch.partial and PARTIAL or COMPLETE)
    if cut then
        complain("cut:" .. address, address .. ": lists more than " .. MAX_APPS .. " apps; the others are unknown")
    elseif not complete then
        complain("full", "the shared dictionary is full: make lua_shared_dict container_healthcheck larger")
    end
end

local function keep_fault(address, fault, text)
    local before = dict:get("state:" .. address)
    local has_room = set_state(address, fault)
    local is_news = before ~= fault and has_room == true
    if is_news then
        local from = before == nil and UNKNOWN or before > 0 and DOWN or "known"
        say(address, ": ", from, " -> ", DOWN, " for all apps, ", describe(fault), ": ", text)
    end
    return is_news
end

local function keep_error(address, watch, err)
    local known = dict:get("state:" .. address) ~= nil
    if known or not (watch.failed or dict:get("error:" .. address)) then
        say(address, ": ", known and "known -> " or "", UNKNOWN, ": ", printable(err))
    end
    watch.failed = true
    dict:delete("state:" .. address)
    dict:safe_set("error:" .. address, printable(err), FORGET)
end


-- Watching a server: one question after another, each in a timer of its own

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

-- Takes an answer in. Returns true when it was news, nil and what is wrong when it was nonsense.
local function hear(address, watch, answer)
    if answer.status == 304 and watch.codes then
        keep_codes(address, watch, watch.codes, watch.cut)
        return false
    end
    local heard, err = understand(answer)
    if not heard then
        return nil, err
    elseif heard.fault then
        -- What it says once the fault is over is wanted at once, also when it is what it said before.
        watch.etag = nil
        return keep_fault(address, heard.fault, heard.text)
    end
    local news = not same(watch.codes, heard.codes)
    watch.cut = heard.cut
    keep_codes(address, watch, news and heard.codes or watch.codes, heard.cut)
    watch.etag = answer.etag and #answer.etag <= 200 and answer.etag or nil
    return news
end

-- The pause before the next question: news may come thick and fast, but not in a circle; a service
-- that does not wait is asked every two seconds, and so is one that fails.
local function pause_after(watch, news, elapsed)
    if news == nil then
        watch.failures = min((watch.failures or 0) + 1, 5)
        return min(0.25 * 2 ^ watch.failures, LONGEST_PAUSE)
    end
    watch.failures = 0
    if news then
        watch.rush = min((watch.rush or SHORTEST_PAUSE / 2) * 2, LONGEST_RUSH)
        return watch.rush
    end
    watch.rush = nil
    return max(0, WAIT - elapsed)
end

local function owns(address)
    return dict:get("lease:" .. address) == pid
end

local function poll(address, watch)
    ngx.update_time()
    local began = now()
    local answer, err = ask(address, watch.etag)
    if not owns(address) then
        -- This worker was frozen: another one knows better by now.
        return 0
    end
    local news
    if answer then
        news, err = hear(address, watch, answer)
    end
    if news == nil then
        watch.etag = nil
        keep_error(address, watch, err)
    else
        watch.failed = nil
    end
    ngx.update_time()
    return pause_after(watch, news, now() - began)
end

local watches = {}

local function slot(number)
    return "server:" .. number
end

local function is_asked_for(address)
    for number = 1, MAX_SERVERS do
        if dict:get(slot(number)) == address then
            return true
        end
    end
    return false
end

local function forget(address)
    for _, kind in ipairs({ "state:", "heard:", "error:" }) do
        dict:delete(kind .. address)
    end
end

local function release(address)
    watches[address] = nil
    if owns(address) then
        dict:delete("lease:" .. address)
    end
end

local function renew_lease(address)
    return owns(address) and dict:safe_set("lease:" .. address, pid, LEASE)
end

local watch_on

local function watch_once(address)
    if ngx.worker.exiting() or not renew_lease(address) then
        return release(address)
    elseif not is_asked_for(address) then
        forget(address)
        return release(address)
    end
    local ok, pause = pcall(poll, address, watches[address])
    if not ok then
        complain("poll", "internal error: " .. printable(pause))
        pause = LONGEST_PAUSE
    end
    renew_lease(address)
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
    for number = 1, MAX_SERVERS do
        local address = dict:get(slot(number))
        if address and not watches[address] and dict:safe_add("lease:" .. address, pid, LEASE) then
            watches[address] = {}
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
        complain("tick", "internal error: " .. printable(err))
    end
end

local function register(address)
    for number = 1, MAX_SERVERS do
        if dict:get(slot(number)) == address then
            dict:safe_set(slot(number), address, FORGET)
            return
        end
    end
    for number = 1, MAX_SERVERS do
        local ok, err = dict:safe_add(slot(number), address, FORGET)
        if ok then
            return
        elseif err == "no memory" then
            complain("full", "the shared dictionary is full: make lua_shared_dict container_healthcheck larger")
            return
        end
    end
    complain("servers", "more than " .. MAX_SERVERS .. " servers: the others are not watched")
end

local function touch(list)
    if not is_over(list.touched, TOUCH) then
        return
    end
    list.touched = now()
    for _, server in ipairs(list.servers) do
        register(server.address)
    end
end


-- The entries

local started = false

-- Begins to look for servers to watch; for init_worker_by_lua, and done by the first request else.
function _M.start()
    if not started and dict then
        pid = ngx.worker.pid()
        started = ngx.timer.every(TICK, tick) and true or false
    end
end

local function target(var)
    local app = var.app
    if not dict then
        complain("dict", "lua_shared_dict container_healthcheck is missing: requests go the stock way")
        return app
    end
    local list = list_of(app, var.appo_servers)
    if not list then
        return app
    end
    if not started then
        _M.start()
    end
    touch(list)
    local order = arrange(list)
    local upstream = var.container_healthcheck_upstream
    if not upstream or upstream == "" then
        return order[1].address
    elseif not can_balance then
        complain("upstream", (has_balancer and "appo_balancer.lua" or "the Lua library ngx.balancer")
            .. " is missing: no request is tried on another server")
        return order[1].address
    end
    order.list, order.tried = list, 0
    ngx.ctx.container_healthcheck = order
    return upstream
end

-- rewrite_by_lua: sets `$target_up` for `$app`.
function _M.rewrite()
    local var = ngx.var
    local ok, chosen = pcall(target, var)
    if not ok then
        complain("rewrite", "internal error: " .. printable(chosen))
        chosen = var.app
    end
    var.target_up = chosen
end

local function next_server(order)
    if order.tried == 0 then
        if #order > 1 then
            balancer.set_more_tries(#order - 1)
        end
    elseif balancer.get_last_failure() == "failed" then
        mark_failed(order.list, order[(order.tried - 1) % #order + 1])
    end
    order.tried = order.tried + 1
    return order[(order.tried - 1) % #order + 1]
end

-- balancer_by_lua: the next server of the order that the rewrite phase made.
function _M.balance()
    local order = ngx.ctx.container_healthcheck
    if not order then
        complain("balance", "the upstream is used by a location without apps_balancer.lua")
        return ngx.exit(502)
    end
    local ok, server = pcall(next_server, order)
    if not ok then
        complain("balance", "internal error: " .. printable(server))
        server = order[1]
    end
    local set, err = balancer.set_current_peer(server.host, server.port)
    if not set then
        complain("peer", server.address .. ": " .. printable(err))
    end
end

-- The last server that a request was sent to, also after an error page took the context away.
local function mark_last(var)
    if var.target_up ~= var.container_healthcheck_upstream or not var.target_up then
        return
    end
    local status = (var.upstream_status or ""):match("(%d+)$")
    local address = (var.upstream_addr or ""):match("([^%s,]+)$")
    local list = (status == "502" or status == "504") and list_of(var.app, var.appo_servers)
    for _, server in ipairs(list and list.servers or {}) do
        if server.address == address then
            mark_failed(list, server)
        end
    end
end

-- log_by_lua: a failure that nginx may not retry (a POST) is known here only.
function _M.note()
    if not dict then
        return
    end
    local ok, err = pcall(mark_last, ngx.var)
    if not ok then
        complain("note", "internal error: " .. printable(err))
    end
end


-- The status page

local function seen_servers()
    local servers, seen = {}, {}
    for number = 1, MAX_SERVERS do
        local address = dict:get(slot(number))
        if address and not seen[address] then
            seen[address] = true
            servers[#servers + 1] = address
        end
    end
    table.sort(servers)
    return servers
end

local function server_status(address)
    local state, heard = dict:get("state:" .. address), dict:get("heard:" .. address)
    local fault = state and state > 0 and state or nil
    return {
        server = address,
        state = state == nil and UNKNOWN or fault and DOWN or "known",
        code = fault,
        reason = dict:get("error:" .. address) or (fault and REASONS[fault]),
        heard_seconds_ago = heard and floor((now() - heard) * 1000 + 0.5) / 1000,
        watched_by = dict:get("lease:" .. address),
        apps = {},
    }
end

local function add_apps(by_address)
    for _, key in ipairs(dict:get_keys(0)) do
        local address, app = key:match("^verdict:(.+)/([^/]+)$")
        local entry = by_address[address]
        local code = entry and dict:get(key)
        if code then
            entry.apps[app] = {
                state = state_of(dict:get("state:" .. address), code),
                code = code,
                reason = REASONS[code],
                failed_just_now = dict:get("failed:" .. address .. "/" .. app) or nil,
            }
        end
    end
end

-- content_by_lua: what this gateway believes, as JSON.
function _M.status()
    ngx.header["Content-Type"] = "application/json"
    ngx.header["Cache-Control"] = "no-store"
    if not has_cjson then
        return ngx.say('{"error":"the Lua library cjson is missing"}')
    end
    local servers, by_address = {}, {}
    for index, address in ipairs(dict and seen_servers() or {}) do
        servers[index] = server_status(address)
        by_address[address] = servers[index]
    end
    if dict then
        add_apps(by_address)
    end
    for index, server in ipairs(servers) do
        servers[index] = cjson.encode(server)
    end
    -- By hand: an empty Lua table would become an object.
    ngx.say('{"shared_dictionary":', tostring(dict ~= nil), ',"servers":[',
        table.concat(servers, ","), "]}")
end

return _M
