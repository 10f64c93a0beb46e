-- container-healthcheck 2.1.0: what this gateway considers and has counted, in Prometheus's text format.
-- Runs in the content phase.

local choice = require("container_healthcheck.choice")
local fleet = require("container_healthcheck.fleet")
local store = require("container_healthcheck.store")

local ngx, ipairs, floor, max = ngx, ipairs, math.floor, math.max

local PREFIX = "container_healthcheck_gateway_"
local STATES = { choice.up, choice.unknown, choice.down }

-- `counts`: requests of no app in particular, which this worker has counted.
local _M = { version = "2.1.0", counts = { stock = 0 } }

local ESCAPES = { ["\\"] = "\\\\", ['"'] = '\\"', ["\n"] = "\\n" }

local function label(name, value)
    return name .. '="' .. value:gsub('[\\"\n]', ESCAPES) .. '"'
end

local function begin(writer, kind, name, meaning)
    writer:add("# HELP " .. name .. " " .. meaning .. "\n# TYPE " .. name .. " " .. kind .. "\n")
end

local function truth(value)
    return value and "1\n" or "0\n"
end

local function add_servers(writer, servers)
    local known, heard = PREFIX .. "server_known", PREFIX .. "server_heard_seconds"
    begin(writer, "gauge", known,
        "1 when the service of the server answers, also when Docker is away there, else 0")
    for _, server in ipairs(servers) do
        -- Servers that are no APPO servers have no service to answer.
        if not server.is_foreign then
            local is_known = server.state ~= choice.unknown
            writer:add(known .. "{" .. label("server", server.address) .. "} " .. truth(is_known))
        end
    end
    begin(writer, "gauge", heard,
        "Seconds since the service of the server last answered; not there when it never has")
    for _, server in ipairs(servers) do
        if server.answered then
            local age = floor(max(ngx.now() - server.answered, 0) * 1000 + 0.5) / 1000
            writer:add(heard .. "{" .. label("server", server.address) .. "} " .. age .. "\n")
        end
    end
end

-- Calls `each` with the app, the labels of app and server, the state, and the server with its role. The
-- labels are made once for each app and server: there are many pairs.
local function each_cell(servers, apps, names, each)
    local there = {}
    for index, server in ipairs(servers) do
        there[index] = label(names.server, server.address)
    end
    for _, app in ipairs(apps.names) do
        local here, roles = label(names.app, app), choice.roles(app)
        for index, server in ipairs(servers) do
            local state = fleet.cell(server, app, roles, apps.is_listed[app])
            if state then
                each(app, here, there[index], state, server, roles and roles[server.address] or "PRIMARY")
            end
        end
    end
end

local function add_apps(writer, servers, apps)
    local up, down, is_down = PREFIX .. "app_up{", PREFIX .. "app_down_everywhere", {}
    begin(writer, "gauge", PREFIX .. "app_up", "1 when the gateway considers the app up there, else 0")
    local names = { server = "server", app = "app_code" }
    each_cell(servers, apps, names, function(app, here, there, state, server)
        if not server.is_foreign then
            writer:add(up .. there .. "," .. here .. "} " .. truth(state == choice.up))
        end
        is_down[app] = state == choice.down and is_down[app] ~= false
    end)
    begin(writer, "gauge", down, "1 when the app is down on all servers, which then all get requests, else 0")
    for _, app in ipairs(apps.names) do
        if is_down[app] ~= nil then
            writer:add(down .. "{" .. label("app_code", app) .. "} " .. truth(is_down[app]))
        end
    end
end

local function add_counter(writer, apps, name, meaning, kind)
    begin(writer, "counter", PREFIX .. name, meaning)
    for _, app in ipairs(apps) do
        local number = store.count(app, kind)
        writer:add(PREFIX .. name .. "{" .. label("app_code", app) .. "} " .. number .. "\n")
    end
end

local function add_counts(writer, wanted)
    local apps = {}
    for _, app in ipairs(store.counted()) do
        if not wanted or app == wanted then
            apps[#apps + 1] = app
        end
    end
    begin(writer, "counter", PREFIX .. "requests_total",
        "Requests for the app, by what was considered of it on the server that each was sent to first")
    for _, app in ipairs(apps) do
        for _, state in ipairs(STATES) do
            writer:add(PREFIX .. "requests_total{" .. label("app_code", app) .. "," .. label("choice", state)
                .. "} " .. store.count(app, state) .. "\n")
        end
    end
    add_counter(writer, apps, "retries_total",
        "How often a request for the app was sent to another server", "retries")
    add_counter(writer, apps, "observed_elsewhere_total",
        "Requests that were only observed and would have gone to another server", "elsewhere")
    add_counter(writer, apps, "observed_avoidable_total",
        "Those of them that ended in 502 or 504", "avoidable")
    begin(writer, "counter", PREFIX .. "stock_total",
        "Requests that were routed as without this module: no server of theirs was known")
    if store.is_there then
        writer:add(PREFIX .. "stock_total " .. store.count("", "stock") .. "\n")
    end
end

-- One series for each state, as version 2.1.0 had it; and each server of each upstream, then the upstream,
-- as lua-resty-upstream-healthcheck writes it.
local function add_all(writer, servers, apps)
    begin(writer, "gauge", PREFIX .. "app_state",
        "1 for the state that the gateway considers the app to be in there, 0 for the others:"
        .. " up, unknown, down")
    each_cell(servers, apps, { server = "server", app = "app_code" }, function(_, here, there, state)
        for _, each in ipairs(STATES) do
            writer:add(PREFIX .. "app_state{" .. there .. "," .. here .. ',state="' .. each .. '"} '
                .. truth(state == each))
        end
    end)
    local info, seen = "nginx_upstream_status_info", {}
    begin(writer, "gauge", info,
        "The running status of nginx upstream: 1 for the status that it has, 0 for the others")
    each_cell(servers, apps, { server = "endpoint", app = "name" }, function(app, here, there, state, _, role)
        local peer, as = info .. "{" .. here .. "," .. there, '",role="' .. role .. '"} '
        writer:add(peer .. ',status="UP' .. as .. truth(state == choice.up))
        writer:add(peer .. ',status="DOWN' .. as .. truth(state == choice.down))
        seen[app] = seen[app] or {}
        seen[app][state] = true
    end)
    for _, app in ipairs(apps.names) do
        local states = seen[app]
        if states then
            local status = states.up and "UP" or states.unknown and "UNKNOWN" or "DOWN"
            for _, each in ipairs({ "UP", "DOWN", "UNKNOWN" }) do
                writer:add(info .. "{" .. label("name", app) .. ',status="' .. each .. '"} '
                    .. truth(status == each))
            end
        end
    end
end

-- `wanted` is the only app that is wanted, if any; `has_all` the series of version 2.1.0 as well.
function _M.write(writer, wanted, has_all)
    local servers = fleet.servers(writer)
    local names, is_listed = fleet.apps(servers, writer)
    local apps = { names = names, is_listed = is_listed }
    if wanted then
        apps.names = is_listed[wanted] ~= nil and { wanted } or {}
    end
    add_servers(writer, servers)
    add_apps(writer, servers, apps)
    add_counts(writer, wanted)
    if has_all then
        add_all(writer, servers, apps)
    end
end

return _M
