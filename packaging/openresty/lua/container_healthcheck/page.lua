-- container-healthcheck 2.1.0: the page for people: apps down the side, servers across, the trouble first.
-- Runs in the content phase.

local fleet = require("container_healthcheck.fleet")
local grid = require("container_healthcheck.grid")
local html = require("container_healthcheck.html")
local look = require("container_healthcheck.look")
local store = require("container_healthcheck.store")
local words_of = require("container_healthcheck.words")

local ngx, ipairs, concat, floor = ngx, ipairs, table.concat, math.floor
local filled, moment = html.filled, html.moment

local KEPT = 1 -- seconds for which a worker shows what it has made to others, too
local LONGEST = 128

local _M = { version = "2.1.0" }

local function notices_html(servers, now, words)
    local parts = {}
    if not store.is_there then
        parts[1] = filled('<p class="notice" role="status">{no_dictionary}</p>\n', words)
    end
    for _, server in ipairs(servers) do
        if server.state ~= "known" then
            parts[#parts + 1] = filled('<p class="notice" role="status"><strong>{address}</strong>{colon}'
                .. "{what}{=reason}{=since}</p>\n", {
                address = server.address,
                colon = words.colon,
                what = server.state == "unknown" and words.unknown_server or words.faulty_server,
                since = moment(server.since, now, words),
                reason = server.reason and filled("{colon}<bdi>{reason}</bdi>",
                    { colon = words.colon, reason = server.reason }) or "",
            })
        end
    end
    return concat(parts)
end

local function counted(rows)
    local found = { nowhere = 0, trouble = 0, drained = 0, good = 0 }
    for _, row in ipairs(rows) do
        local kind = not row.is_served and "nowhere" or row.in_trouble and "trouble"
            or row.has.drained and "drained" or "good"
        found[kind] = found[kind] + 1
    end
    return found
end

local function count_away(servers)
    local away = 0
    for _, server in ipairs(servers) do
        away = away + (server.state == "known" and 0 or 1)
    end
    return away
end

local function summary_html(servers, rows, words)
    local found, away, parts = counted(rows), count_away(servers), {}
    local function add(class, text)
        parts[#parts + 1] = filled('<span class="{class}">{text}</span>', { class = class, text = text })
    end
    if #rows == 0 then
        add("soft", words.no_apps)
    elseif found.good == #rows and away == 0 then
        add("good", words.all_well)
    end
    for _, each in ipairs({
        { found.nowhere, "bad", words.nowhere },
        { found.trouble, "bad", words.in_trouble },
        { away, "bad", words.away },
        { found.drained, "drained", words.drained },
        { found.good, "good", words.healthy },
    }) do
        if each[1] > 0 then
            add(each[2], each[1] .. " " .. each[3][each[1] == 1 and 1 or 2])
        end
    end
    return concat(parts, "\n"), found.nowhere + found.trouble + away
end

local function query(lang, filter)
    return "?lang=" .. lang
        .. (filter.given ~= "" and "&app_code=" .. ngx.escape_uri(filter.given) or "")
        .. (filter.trouble and "&trouble=1" or "")
end

local TOP = [[
<header id="head">
<h1>
{=summary}
</h1>
<nav><a href="?format=json">{json}</a><a href="?format=prometheus">metrics</a><a id="language"
 href="{other}" hreflang="{other_tag}" lang="{other_tag}">{other_language}</a></nav>
</header>
<dl id="facts">
<div><dt>{gateway_word}</dt><dd>{host}</dd></div>
<div><dt>{version_word}</dt><dd>{version}</dd></div>
<div><dt>{servers_word}</dt><dd>{servers}</dd></div>
</dl>
]]

local BOTTOM = [[
<div id="notices">
{=notices}</div>
<div id="fleet">
{=table}</div>
<footer id="foot">{as_of} <time datetime="{exact}">{exact}</time></footer>
]]

local PAGE = [[
<!DOCTYPE html>
<html lang="{html_tag}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{=style}</style>
</head>
<body data-now="{now}" data-lang="{tag}" data-units="{units}">
<p class="notice" id="silence" role="alert" hidden>{not_answering} <span></span></p>
<main>
{=top}<form method="get" role="search">
<label>{filter} <input type="search" name="app_code" value="{given}" maxlength="128" autocomplete="off"
 spellcheck="false"></label>
<label><input type="checkbox" name="trouble" value="1"{=checked}> {trouble_only}</label>
<input type="hidden" name="lang" value="{tag}">
<input type="hidden" name="format" value="html">
<button>{apply}</button>
</form>
{=bottom}</main>
<script>{=script}</script>
</body>
</html>
]]

local function exact(now)
    return os.date("!%Y-%m-%d %H:%M:%S UTC", floor(now))
end

local function make(filter, now, words)
    local servers = fleet.servers()
    local rows = fleet.rows(servers)
    local summary, bad = summary_html(servers, rows, words)
    local top = filled(TOP, {
        summary = summary,
        json = words.json,
        other = query(words.other_tag, filter),
        other_tag = words.other_tag,
        other_language = words.other_language,
        gateway_word = words.gateway,
        host = ngx.var.hostname,
        version_word = words.version,
        version = _M.version,
        servers_word = words.servers,
        servers = #servers,
    })
    local bottom = filled(BOTTOM, {
        notices = notices_html(servers, now, words),
        table = grid.table(servers, rows, filter, now, words),
        as_of = words.as_of,
        exact = exact(now),
    })
    local title = (bad > 0 and "(" .. bad .. ") " or "") .. ngx.var.hostname .. " · container-healthcheck"
    return { at = now, top = top, bottom = bottom, title = title }
end

local kept = {}

-- The page without filters, which everyone's script asks for, is made once for all.
local function made(filter, now, words)
    if filter.given ~= "" or filter.trouble then
        return make(filter, now, words)
    end
    local last = kept[words.tag]
    if not last or now < last.at or now - last.at >= KEPT then
        last = make(filter, now, words)
        kept[words.tag] = last
    end
    return last
end

local POLICY = "default-src 'none'; style-src '" .. look.style_hash .. "'; script-src '" .. look.script_hash
    .. "'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'self';"
    .. " frame-ancestors 'none'"

-- `text` is what the names of the apps wanted contain, if any.
function _M.answer(text)
    local var = ngx.var
    local words = words_of.wanted(var.arg_lang, var.http_accept_language)
    local given = text:sub(1, LONGEST):match("^%s*(.-)%s*$")
    local filter = { given = given, text = given:lower(), trouble = var.arg_trouble == "1" }
    local page = made(filter, ngx.now(), words)
    ngx.header["Content-Type"] = "text/html; charset=utf-8"
    ngx.header["Content-Security-Policy"] = POLICY
    ngx.header["Referrer-Policy"] = "no-referrer"
    ngx.print(filled(PAGE, {
        html_tag = words.html_tag,
        tag = words.tag,
        title = page.title,
        style = look.style,
        now = page.at,
        units = concat(words.units, ","),
        not_answering = words.not_answering,
        top = page.top,
        bottom = page.bottom,
        filter = words.filter,
        given = given,
        checked = filter.trouble and " checked" or "",
        trouble_only = words.trouble_only,
        apply = words.apply,
        script = look.script,
    }))
end

return _M
