-- container-healthcheck 2.1.0: the lines that operators read in nginx's error log.

local store = require("container_healthcheck.store")

local ngx = ngx
local AGAIN = 3600 -- seconds after which a complaint is repeated
local LONGEST = 200

local REASONS = {
    [10] = "cannot connect to Docker",
    [11] = "Docker does not answer properly",
    [12] = "no container",
    [13] = "no healthy container",
    [14] = "the app does not answer",
    [15] = "drained",
}

local _M = { version = "2.1.0", reasons = REASONS }

function _M.say(...)
    ngx.log(ngx.ERR, "container-healthcheck: ", ...)
end

-- Logs what would otherwise be logged for every request: once an hour for all workers.
function _M.complain(about, text)
    if store.is_first(about, AGAIN) then
        _M.say(text)
    end
end

function _M.complain_of_memory()
    _M.complain("full", "the shared dictionary is full: make lua_shared_dict container_healthcheck larger")
end

-- Text from outside, made harmless for a log.
function _M.printable(text)
    return (tostring(text):sub(1, LONGEST):gsub("[^\32-\126]", "?"))
end

function _M.internal_error(where, err)
    _M.complain(where, "internal error in " .. where .. ": " .. _M.printable(err))
end

function _M.describe(code)
    return "code " .. code .. (REASONS[code] and " (" .. REASONS[code] .. ")" or "")
end

return _M
