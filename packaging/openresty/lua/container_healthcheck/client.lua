-- container-healthcheck 2.1.0: asks a service, by the least of HTTP/1.1 that serves, bounded in time and
-- in size. Runs in timers: it waits.

local ngx = ngx
local now = ngx.now
local tonumber, setmetatable, min, max, floor = tonumber, setmetatable, math.min, math.max, math.floor

local LIST_PATH = "/container-healthcheck/apps/health"
local WAIT = 2 -- seconds a service may hold its answer back
local DEADLINE = WAIT + 1 -- the longest time one question may take
local MAX_LINE, MAX_HEADERS, MAX_BODY = 8192, 100, 1024 * 1024

local _M = { version = "2.1.0", wait = WAIT }

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
        local part
        part, err = self:take(size)
        if not part or self:line() ~= "" then
            return nil, err or "half an answer"
        end
        parts[#parts + 1] = part
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
    local host = address:match("^unix:") and "localhost" or address
    return "GET " .. LIST_PATH .. " HTTP/1.1\r\nHost: " .. host
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
function _M.ask(address, etag)
    ngx.update_time()
    local reader = setmetatable(
        { socket = ngx.socket.tcp(), deadline = now() + DEADLINE, buffer = "" }, Reader)
    local answer, err = exchange(reader, address, etag)
    reader.socket:close()
    return answer, err
end

return _M
