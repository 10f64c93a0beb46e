-- container-healthcheck 2.1.0: whether a time has run out. Runs in every phase, and in timers.

local now = ngx.now

local _M = { version = "2.1.0" }

-- True also when the clock was set back: better too early than hours too late.
function _M.is_over(since, seconds)
    local elapsed = now() - since
    return elapsed < 0 or elapsed >= seconds
end

return _M
