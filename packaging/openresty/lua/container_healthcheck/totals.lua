-- container-healthcheck 2.1.0: how many requests all workers have counted. It alone knows the keys for
-- that in the shared dictionary. Runs in timers and in the content phase: nothing here waits.
--
--   counted:N         the Nth app whose requests are counted
--   count:APP         when they last were
--   count:APP/KIND    how many were of that kind
--   stock             how many requests went the stock way

local dict = ngx.shared.container_healthcheck
local now = ngx.now

local MAX_COUNTED = 2000

local _M = { version = "2.1.0" }

-- The apps whose requests are counted.
function _M.counted()
    local apps = {}
    for number = 1, MAX_COUNTED do
        apps[number] = dict:get("counted:" .. number)
        if not apps[number] then
            break
        end
    end
    return apps
end

-- When the app's requests were last counted, or nil.
function _M.counted_at(app)
    return dict:get("count:" .. app)
end

local function take_number(app)
    for number = 1, MAX_COUNTED do
        local ok, err = dict:safe_add("counted:" .. number, app)
        if ok or err ~= "exists" then
            return ok
        end
    end
    return false
end

-- True when there was room for it.
function _M.keep_counted(app)
    local key = "count:" .. app
    -- Only one worker adds it, and takes a number for it.
    local ok, err = dict:safe_add(key, now())
    if not ok then
        return err == "exists" and dict:replace(key, now())
    elseif not take_number(app) then
        dict:delete(key)
        return false
    end
    return true
end

local function add(key, number)
    local ok, err = dict:safe_add(key, number)
    if not ok and err == "exists" then
        ok = dict:incr(key, number)
    end
    return ok ~= nil and ok ~= false
end

-- True when there was room for it.
function _M.add_count(app, kind, number)
    return add("count:" .. app .. "/" .. kind, number)
end

function _M.add_stock(number)
    return dict ~= nil and add("stock", number)
end

function _M.count(app, kind)
    return dict:get("count:" .. app .. "/" .. kind) or 0
end

function _M.stock()
    return dict:get("stock") or 0
end

return _M
