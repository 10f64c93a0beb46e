-- container-healthcheck 2.1.0: in which form this gateway says what it believes. Runs in the content
-- phase.

local listing = require("container_healthcheck.listing")
local log = require("container_healthcheck.log")
local metrics = require("container_healthcheck.metrics")
local page = require("container_healthcheck.page")
local servers = require("container_healthcheck.servers")
local words = require("container_healthcheck.words")

local ngx, pcall = ngx, pcall
local quality_of = words.quality_of

local _M = { version = "2.1.0" }

local function refuse(status, text)
    ngx.status = status
    ngx.header["Content-Type"] = "application/json"
    ngx.say('{"error":"', text, '"}')
end

-- How much each media type is liked, by the header Accept.
local function likings(accept)
    local likes = {}
    for item in accept:lower():gmatch("[^,]+") do
        local kind, rest = item:match("^%s*([^;%s]+)(.*)$")
        if kind then
            likes[kind] = quality_of(rest)
        end
    end
    return likes
end

-- HTML for who names it and likes it no less than JSON: browsers do.
local function likes_html(accept)
    local likes = likings(accept)
    local html = likes["text/html"] or 0
    local json = likes["application/json"] or likes["application/*"] or likes["*/*"] or 0
    return html > 0 and html >= json
end

local function format_wanted(var)
    local format = var.arg_format or ""
    return format ~= "" and format or likes_html(var.http_accept or "") and "html" or "json"
end

local function answer()
    local var = ngx.var
    local format = format_wanted(var)
    local app = ngx.unescape_uri(var.arg_app_code or "")
    ngx.header["Cache-Control"] = "no-store"
    ngx.header["Vary"] = "Accept, Accept-Language"
    ngx.header["X-Content-Type-Options"] = "nosniff"
    if format == "html" then
        return page.answer(app)
    elseif format ~= "json" and format ~= "prometheus" then
        return refuse(400, "format is one of html, json, prometheus")
    elseif app ~= "" and not servers.is_name(app) then
        return refuse(400, "app_code is no app code: letters, digits, _ . - and 128 of them at most")
    end
    return (format == "json" and listing or metrics).answer(app ~= "" and app or nil)
end

function _M.answer()
    local ok, err = pcall(answer)
    if not ok then
        log.complain("status", "internal error: " .. log.printable(err))
        if not ngx.headers_sent then
            refuse(500, "internal error: see nginx's error log")
        end
    end
end

return _M
