-- container-healthcheck 2.1.0: what this gateway considers: a page for people, JSON, and metrics. Runs in
-- the content phase.

local fleet = require("container_healthcheck.fleet")
local log = require("container_healthcheck.log")
local metrics = require("container_healthcheck.metrics")
local store = require("container_healthcheck.store")
local choice = require("container_healthcheck.choice")
local is_name = require("container_healthcheck.watch").is_name
local cjson = require("cjson.safe")

local ngx, ipairs, pairs, pcall, floor, max = ngx, ipairs, pairs, pcall, math.floor, math.max
local encode = cjson.encode

local VERSION = "2.1.0"
local KEPT = 1 -- seconds for which a worker gives others what it has made, unless something changes
local PATIENCE = 10 -- seconds
local JSON, HTML = "application/json", "text/html; charset=utf-8"
local TEXT = "text/plain; version=0.0.4; charset=utf-8"

local _M = { version = VERSION }


-- The page: one file, which reads what `format=fleet` says

local page

-- Its first line says what its style and its script are: the browser is to take nothing else.
local function read_page()
    local folder = debug.getinfo(1, "S").source:match("^@(.*/)") or ""
    local file = assert(io.open(folder .. "page.html"))
    local first, rest = file:read("*l"), file:read("*a")
    file:close()
    local style, script = first:match("style (sha256%-%S+) script (sha256%-%S+) ")
    return {
        text = rest,
        policy = "default-src 'none'; style-src '" .. style .. "'; script-src '" .. script
            .. "'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'self';"
            .. " frame-ancestors 'none'",
    }
end

local function send_page()
    page = page or read_page()
    ngx.header["Content-Type"] = HTML
    ngx.header["Content-Security-Policy"] = page.policy
    ngx.header["Referrer-Policy"] = "no-referrer"
    ngx.print(page.text)
end

local NUMBERS = { up = 0, unknown = 1, down = 2 }
local FAILED, OF_SERVER = 1, 2

-- A cell is [state, code, since when, flags].
local function write_cells(writer, servers, app, is_listed)
    local roles, has_any_failed = choice.roles(app), store.has_any_failed()
    for index, server in ipairs(servers) do
        local state, code, since, is_servers = fleet.cell(server, app, roles, is_listed)
        local comma = index > 1 and "," or ""
        if state then
            local flags = (has_any_failed and store.has_failed(server.address, app) and FAILED or 0)
                + (is_servers and OF_SERVER or 0)
            writer:add(comma .. "[" .. NUMBERS[state] .. "," .. (code or "null") .. ","
                .. (since or "null") .. "," .. flags .. "]")
        else
            writer:add(comma .. "null")
        end
    end
end

local function write_fleet(writer)
    local servers = fleet.servers(writer)
    local names, is_listed = fleet.apps(servers, writer)
    local heads = {}
    for index, server in ipairs(servers) do
        heads[index] = encode({
            server = server.address, state = server.state, code = server.code, reason = server.reason,
            since = server.since, answered = server.answered, foreign = server.is_foreign or nil,
        })
    end
    local reasons = {}
    for code, reason in pairs(log.reasons) do
        reasons[tostring(code)] = reason
    end
    local elsewhere, avoidable = 0, 0
    for _, app in ipairs(store.counted()) do
        elsewhere = elsewhere + store.count(app, "elsewhere")
        avoidable = avoidable + store.count(app, "avoidable")
    end
    writer:breathe()
    writer:add('{"gateway":' .. encode(ngx.var.hostname) .. ',"version":"' .. VERSION
        .. '","now":' .. ngx.now()
        .. ',"shared_dictionary":' .. tostring(store.is_there) .. ',"reasons":' .. encode(reasons)
        .. ',"observed":' .. encode({ elsewhere = elsewhere, avoidable = avoidable })
        .. ',"servers":[' .. table.concat(heads, ",") .. '],"apps":{')
    for index, app in ipairs(names) do
        writer:add((index > 1 and "," or "") .. encode(app) .. ":[")
        write_cells(writer, servers, app, is_listed[app])
        writer:add("]")
    end
    writer:add("}}\n")
end


-- The JSON

-- What JSON says of a code is the same for all apps.
local function app_text(server, app, texts)
    local state, code = choice.state_of(server.record, server.is_valid, app), server.apps[app][1]
    local key = state .. code
    if not texts[key] then
        texts[key] = encode({ state = state, code = code, reason = log.reasons[code] })
    end
    if store.has_any_failed() and store.has_failed(server.address, app) then
        return texts[key]:sub(1, -2) .. ',"failed_just_now":true}'
    end
    return texts[key]
end

local function write_json(writer, wanted)
    writer:add('{"shared_dictionary":' .. tostring(store.is_there) .. ',"servers":[')
    local texts = {}
    for index, server in ipairs(fleet.servers(writer)) do
        local heard = server.answered and floor(max(ngx.now() - server.answered, 0) * 1000 + 0.5) / 1000
        local head = encode({
            server = server.address, state = server.state, code = server.code, reason = server.reason,
            heard_seconds_ago = heard, watched_by = server.watched_by, foreign = server.is_foreign or nil,
        })
        writer:add((index > 1 and "," or "") .. head:sub(1, -2) .. ',"apps":{')
        local comma = ""
        for app in pairs(server.apps) do
            if not wanted or app == wanted then
                writer:add(comma .. encode(app) .. ":" .. app_text(server, app, texts))
                comma = ","
            end
        end
        writer:add("}}")
    end
    writer:add("]}\n")
end


-- Any of them

local made = {}

local function make(write, ...)
    local writer = fleet.writer()
    write(writer, ...)
    return writer:finish()
end

-- What everybody is given is made once for all.
local function made_for_all(key, write, ...)
    local counted = write == metrics.write and store.counts_version()
    local last = made[key]
    local began = ngx.now()
    while last and last.is_under_way and not store.is_over(began, PATIENCE) do
        ngx.sleep(0.01)
        last = made[key]
    end
    local version = store.is_there and store.version_at(ngx.now())
    if last and last.pieces and last.version == version and last.counted == counted
        and not store.is_over(last.at, KEPT) then
        return last.pieces
    end
    local mine = { at = ngx.now(), version = version, counted = counted, is_under_way = true }
    made[key] = mine
    local ok, pieces = pcall(make, write, ...)
    mine.is_under_way = false
    mine.pieces = ok and pieces or nil
    return ok and pieces or error(pieces, 0)
end

local function send(kind, pieces)
    ngx.header["Content-Type"] = kind
    for index, piece in ipairs(pieces) do
        ngx.print(piece)
        if index % 2 == 0 then
            ngx.sleep(0)
        end
    end
end

local function refuse(status, text)
    ngx.status = status
    ngx.header["Content-Type"] = JSON
    ngx.say('{"error":"', text, '"}')
end

-- How much an item of an Accept header is liked: 1 when it does not say, 0 when it talks nonsense.
local function quality_of(item)
    local text = item:match(";%s*[qQ]%s*=%s*([^;%s]*)") or "1"
    return text:find("^[%d.]+$") and tonumber(text) or 0
end

-- HTML for clients that name it and like it no less than JSON: browsers do.
local function likes_html(accept)
    local likes = {}
    for item in accept:lower():gmatch("[^,]+") do
        local kind, rest = item:match("^%s*([^;%s]+)(.*)$")
        if kind then
            likes[kind] = quality_of(rest)
        end
    end
    local html = likes["text/html"] or 0
    return html > 0 and html >= (likes["application/json"] or likes["application/*"] or likes["*/*"] or 0)
end

local function answer()
    local var = ngx.var
    local format, app = var.arg_format or "", ngx.unescape_uri(var.arg_app_code or "")
    if format == "" then
        format = likes_html(var.http_accept or "") and "html" or "json"
    end
    ngx.header["Cache-Control"] = "no-store"
    ngx.header["Vary"] = "Accept"
    ngx.header["X-Content-Type-Options"] = "nosniff"
    if format == "html" then
        return send_page()
    elseif format == "fleet" then
        return send(JSON, made_for_all("fleet", write_fleet))
    elseif format ~= "json" and format ~= "prometheus" then
        return refuse(400, "format is one of html, json, prometheus")
    elseif app ~= "" and not is_name(app) then
        return refuse(400, "app_code is no app code: letters, digits, _ . - and 128 of them at most")
    end
    local is_json, has_all = format == "json", var.arg_series == "all"
    local write = is_json and write_json or metrics.write
    local kind = is_json and JSON or TEXT
    if app ~= "" then
        return send(kind, make(write, app, has_all))
    end
    return send(kind, made_for_all(format .. (has_all and "all" or ""), write, nil, has_all))
end

function _M.answer()
    local ok, err = pcall(answer)
    if not ok then
        log.internal_error("status", err)
        if not ngx.headers_sent then
            refuse(500, "internal error: see nginx's error log")
        end
    end
end

return _M
