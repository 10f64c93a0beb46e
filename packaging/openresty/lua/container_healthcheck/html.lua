-- container-healthcheck 2.1.0: pieces of HTML, in which what comes from outside is harmless. Pure.

local age = require("container_healthcheck.words").age

local floor = math.floor

local _M = { version = "2.1.0" }

local ENTITIES = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;", ["'"] = "&#39;" }

local function escaped(text)
    return (tostring(text):gsub("[&<>\"']", ENTITIES):gsub("[%z\1-\31\127]", "?"))
end

-- Fills each {name} of a template with the value of that name, escaped; of {=name} as it is.
function _M.filled(template, values)
    return (template:gsub("{(=?)(%l[%w_]*)}", function(raw, name)
        local value = values[name]
        return raw == "=" and tostring(value) or escaped(value)
    end))
end

function _M.moment(at, now, words)
    if not at then
        return ""
    end
    return _M.filled(' <time datetime="{exact}" title="{exact}" data-at="{at}">{age}</time>', {
        exact = os.date("!%Y-%m-%dT%H:%M:%SZ", floor(at)),
        at = at,
        age = age(now - at, words),
    })
end

return _M
