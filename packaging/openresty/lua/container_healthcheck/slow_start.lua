-- container-healthcheck 2.1.0: how much of its share a server gets that has just come back.
-- Runs in the rewrite and balancer phases, when a choice is worked out.

local ngx = ngx
local tonumber, floor, min, max = tonumber, math.floor, math.min, math.max

local WHOLE = 10 -- steps

local _M = { version = "2.1.0", whole = WHOLE }

-- What the site asks for, in seconds; 0 for no slow start.
function _M.seconds()
    return max(tonumber(ngx.var.container_healthcheck_slow_start) or 0, 0)
end

-- The share, from 1 to WHOLE, of a server that came back at `risen`; nil when it never was away.
function _M.share(risen, seconds)
    local elapsed = risen and ngx.now() - risen
    if not elapsed or elapsed < 0 or elapsed >= seconds then
        return WHOLE
    end
    return min(floor(elapsed / seconds * WHOLE) + 1, WHOLE)
end

return _M
