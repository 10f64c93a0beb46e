-- container-healthcheck 2.1.0: what this gateway believes and counted, in Prometheus's text format.
-- Runs in the content phase.

local choice = require("container_healthcheck.choice")
local fleet = require("container_healthcheck.fleet")
local store = require("container_healthcheck.store")
local totals = require("container_healthcheck.totals")

local ngx, ipairs, floor, max = ngx, ipairs, math.floor, math.max
local concat = table.concat

local PREFIX = "container_healthcheck_gateway_"
local STATES = { choice.up, choice.unknown, choice.down }

local _M = { version = "2.1.0", content_type = "text/plain; version=0.0.4; charset=utf-8" }

local ESCAPES = { ["\\"] = "\\\\", ['"'] = '\\"', ["\n"] = "\\n" }

local function label(name, value)
    return name .. '="' .. value:gsub('[\\"\n]', ESCAPES) .. '"'
end

local Text = {}
Text.__index = Text

function Text:begin(kind, name, meaning)
    self.name = name
    self[#self + 1] = "# HELP " .. name .. " " .. meaning
    self[#self + 1] = "# TYPE " .. name .. " " .. kind
end

-- `labels` is their text, "" for none.
function Text:add(value, labels)
    self[#self + 1] = self.name .. (labels ~= "" and "{" .. labels .. "} " or " ") .. value
end

local function truth(value)
    return value and 1 or 0
end

local function add_servers(text, servers)
    text:begin("gauge", PREFIX .. "server_known",
        "1 when the service of the server is heard, also when Docker is away there, else 0")
    for _, server in ipairs(servers) do
        text:add(truth(server.raw ~= nil), label("server", server.address))
    end
    text:begin("gauge", PREFIX .. "server_heard_seconds",
        "Seconds since the service of the server last answered; not there when it never has")
    for _, server in ipairs(servers) do
        if server.heard then
            local age = max(ngx.now() - server.heard, 0)
            text:add(floor(age * 1000 + 0.5) / 1000, label("server", server.address))
        end
    end
end

-- Calls `with` with cell, row, server and the labels of both, for all cells. The labels are made once for
-- each server and row: there are many cells.
local function each_cell(servers, rows, of_server, of_row, with)
    local there = {}
    for index, server in ipairs(servers) do
        there[index] = label(of_server, server.address)
    end
    for number, row in ipairs(rows) do
        if number % fleet.at_once == 0 then
            ngx.sleep(0)
        end
        local app = label(of_row, row.app)
        for index, server in ipairs(servers) do
            local cell = row.cells[index]
            if cell then
                with(cell, there[index], app, row.roles[server.address])
            end
        end
    end
end

local function add_apps(text, servers, rows)
    text:begin("gauge", PREFIX .. "app_up", "1 when the gateway believes the app to be up there, else 0")
    each_cell(servers, rows, "server", "app_code", function(cell, server, app)
        text:add(truth(cell.state == choice.up), server .. "," .. app)
    end)
    text:begin("gauge", PREFIX .. "app_state",
        "1 for the state that the gateway believes the app to be in there, 0 for the others:"
        .. " up, unknown, down")
    each_cell(servers, rows, "server", "app_code", function(cell, server, app)
        local labels = server .. "," .. app
        for index = 1, #STATES do
            text:add(truth(cell.state == STATES[index]), labels .. ',state="' .. STATES[index] .. '"')
        end
    end)
end

local function add_counts(text, wanted)
    local apps = {}
    for _, app in ipairs(store.is_there and totals.counted() or {}) do
        if not wanted or app == wanted then
            apps[#apps + 1] = app
        end
    end
    text:begin("counter", PREFIX .. "requests_total",
        "Requests for the app, by what was believed of it on the server that each was sent to first")
    for _, app in ipairs(apps) do
        for _, state in ipairs(STATES) do
            text:add(totals.count(app, state), label("app_code", app) .. "," .. label("choice", state))
        end
    end
    text:begin("counter", PREFIX .. "retries_total",
        "How often a request for the app was sent to another server")
    for _, app in ipairs(apps) do
        text:add(totals.count(app, "retries"), label("app_code", app))
    end
    text:begin("counter", PREFIX .. "stock_total",
        "Requests that went the way they would go without this module")
    if store.is_there then
        text:add(totals.stock(), "")
    end
end

-- As lua-resty-upstream-healthcheck writes it: each server of each upstream, then the upstream.
local function add_upstreams(text, servers, rows)
    text:begin("gauge", "nginx_upstream_status_info", "The running status of nginx upstream:"
        .. " 1 for the status that it has, 0 for the others")
    each_cell(servers, rows, "endpoint", "name", function(cell, endpoint, name, role)
        local peer, as = name .. "," .. endpoint, '",role="' .. (role or "PRIMARY") .. '"'
        text:add(truth(cell.state == choice.up), peer .. ',status="UP' .. as)
        text:add(truth(cell.state == choice.down), peer .. ',status="DOWN' .. as)
    end)
    for _, row in ipairs(rows) do
        local name, unknown = label("name", row.app), not row.is_served and row.has.doubt
        text:add(truth(row.is_served), name .. ',status="UP"')
        text:add(truth(not row.is_served and not unknown), name .. ',status="DOWN"')
        text:add(truth(unknown), name .. ',status="UNKNOWN"')
    end
end

local function only(rows, wanted)
    local found = {}
    for _, row in ipairs(rows) do
        if not wanted or row.app == wanted then
            found[#found + 1] = row
        end
    end
    return found
end

-- `app` is the only one wanted, if any.
function _M.answer(app)
    local servers = fleet.servers()
    local rows = only(fleet.rows(servers), app)
    local text = setmetatable({}, Text)
    add_servers(text, servers)
    add_apps(text, servers, rows)
    add_counts(text, app)
    add_upstreams(text, servers, rows)
    ngx.header["Content-Type"] = _M.content_type
    ngx.say(concat(text, "\n"))
end

return _M
