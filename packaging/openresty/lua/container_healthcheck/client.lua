-- container-healthcheck 2.1.0: asks a service for its verdicts, bounded in time and size. By HTTP/1.0:
-- whatever stands between undoes chunks and closes the connection after the answer. Runs in timers.

local ngx, now = ngx, ngx.now
local tonumber, floor, max = tonumber, math.floor, math.max

local LIST_PATH = "/container-healthcheck/apps/health"
local WAIT = 2 -- seconds for which a service may hold its answer back
local DEADLINE = WAIT + 1 -- the longest that one question may take
local MAX_ANSWER = 1024 * 1024

local _M = { version = "2.1.0", wait = WAIT }

-- Lets the next operation of the socket take what is left of the time.
local function limit(socket, deadline)
    ngx.update_time()
    local left = deadline - now()
    if left <= 0 or left > DEADLINE then -- or the clock was set back
        return nil, "timeout"
    end
    socket:settimeout(max(floor(left * 1000), 1))
    return true
end

local function connect(socket, address)
    local host, port = address:match("^(.+):(%d+)$")
    if address:sub(1, 5) == "unix:" then
        return socket:connect(address)
    end
    return socket:connect(host, tonumber(port))
end

local function request_for(address, etag)
    return "GET " .. LIST_PATH .. " HTTP/1.0\r\nHost: " .. (address:find("^unix:") and "localhost" or address)
        .. "\r\nUser-Agent: container-healthcheck-gateway\r\nAccept: application/json\r\n"
        .. "Prefer: wait=" .. WAIT .. "\r\n"
        .. (etag and "If-None-Match: " .. etag .. "\r\n" or "")
        .. "Connection: close\r\n\r\n"
end

-- Everything until the server closes the connection.
local function read_all(socket, deadline)
    local parts, length = {}, 0
    while true do
        local data, err = limit(socket, deadline)
        if data then
            data, err = socket:receiveany(65536)
        end
        if not data then
            if err == "closed" and length > 0 then
                return table.concat(parts)
            end
            return nil, err
        end
        parts[#parts + 1], length = data, length + #data
        if length > MAX_ANSWER then
            return nil, "the answer is too long"
        end
    end
end

local function exchange(socket, deadline, address, etag)
    local ok, err = limit(socket, deadline)
    if ok then
        ok, err = connect(socket, address)
    end
    if not ok then
        return nil, err == "timeout" and "no connection in time" or err
    end
    ok, err = socket:send(request_for(address, etag))
    if not ok then
        return nil, err
    end
    return read_all(socket, deadline)
end

local function parse(text)
    local status = tonumber(text:match("^HTTP/1%.%d (%d%d%d)"))
    local head_end, body_start = text:find("\r?\n\r?\n")
    if not status or not head_end then
        return nil, "the answer is not HTTP"
    end
    local head, body = text:sub(1, head_end) .. "\n", text:sub(body_start + 1)
    local function header(pattern)
        return head:match("\n" .. pattern .. ":[ \t]*([^\r\n]-)[ \t]*\r?\n")
    end
    local length = header("[Cc]ontent%-[Ll]ength")
    if length and status ~= 304 then
        length = tonumber(length:match("^%d+$"))
        if not length or #body < length then
            return nil, "half an answer"
        end
        body = body:sub(1, length)
    end
    return { status = status, etag = header("[Ee][Tt][Aa][Gg]"), body = body }
end

-- One question. Returns the answer, or nil and what went wrong.
function _M.ask(address, etag)
    ngx.update_time()
    local socket = ngx.socket.tcp()
    local text, err = exchange(socket, now() + DEADLINE, address, etag)
    socket:close()
    if not text then
        return nil, err == "timeout" and "no answer in time" or err
    end
    return parse(text)
end

return _M
