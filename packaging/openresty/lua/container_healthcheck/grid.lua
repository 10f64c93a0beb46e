-- container-healthcheck 2.1.0: the page's table: apps down the side, servers across. Runs in the content
-- phase: it lets requests pass now and then.

local fleet = require("container_healthcheck.fleet")
local html = require("container_healthcheck.html")
local words_of = require("container_healthcheck.words")

local ngx, ipairs, concat = ngx, ipairs, table.concat
local age, filled, moment = words_of.age, html.filled, html.moment

local _M = { version = "2.1.0" }

local ABSENT = '<td class="absent" data-label="{address}"><span class="soft" title="{absent}">–</span></td>'

local function cell_html(cell, address, now, words)
    if not cell then
        return filled(ABSENT, { address = address, absent = words.absent })
    end
    local word = cell.state == "down" and words.codes[cell.code] or words.states[cell.state]
    local code = cell.state == "down" and cell.code and " <small>" .. cell.code .. "</small>" or ""
    -- What is the server's stands once, above the table, and here for the mouse.
    local text = filled('<td class="{class}" data-label="{address}"{=title}><span class="state {kind}">'
        .. '<i aria-hidden="true"></i>{word}{=code}</span>', {
        class = cell.is_servers and "servers" or cell.kind,
        title = cell.is_servers and filled(' title="{reason}"', { reason = cell.reason or "" }) or "",
        address = address,
        kind = cell.kind,
        word = word,
        code = code,
    })
    text = text .. moment(cell.since, now, words)
    if cell.reason and cell.kind == "bad" and not cell.is_servers then
        text = text .. filled("<small><bdi>{reason}</bdi></small>", cell)
    end
    if cell.failed then
        text = text .. filled("<small>{failed}</small>", words)
    end
    return text .. "</td>"
end

local function row_html(row, servers, now, words)
    local parts = { filled('<tr data-app="{lower}"{=trouble}>'
        .. '<th scope="row" class="app">{app}{=nowhere}</th>', {
        lower = row.app:lower(),
        app = row.app,
        trouble = row.in_trouble and ' data-trouble="1"' or "",
        nowhere = row.is_served and ""
            or filled('<small class="nowhere">{nowhere}</small>', { nowhere = words.unserved }),
    }) }
    for index, server in ipairs(servers) do
        parts[#parts + 1] = cell_html(row.cells[index], server.address, now, words)
    end
    parts[#parts + 1] = "</tr>\n"
    return concat(parts)
end

local function head_html(servers, now, words)
    local parts = { filled('<thead><tr><th scope="col">{app}</th>', words) }
    for _, server in ipairs(servers) do
        local heard = server.heard
            and words.heard .. age(now - server.heard, words) .. words.ago
        local is_known = server.state == "known"
        parts[#parts + 1] = filled('<th scope="col" class="{class}">{address}<small>{heard}</small></th>', {
            class = is_known and "" or "bad",
            address = server.address,
            heard = heard or words.never_heard,
        })
    end
    parts[#parts + 1] = "</tr></thead>\n"
    return concat(parts)
end

local function matches(row, filter)
    return row.app:lower():find(filter.text, 1, true) and (row.in_trouble or not filter.trouble)
end

-- The apps that `filter` leaves, a row each, as they are at `now`; or why there is none.
function _M.table(servers, rows, filter, now, words)
    local parts, shown = {}, 0
    if #servers == 0 then
        parts[#parts + 1] = filled('<p class="soft">{no_servers}</p>\n', words)
    elseif #rows > 0 then
        parts[#parts + 1] = "<table>\n" .. head_html(servers, now, words) .. "<tbody>\n"
        for number, row in ipairs(rows) do
            if matches(row, filter) then
                shown = shown + 1
                parts[#parts + 1] = row_html(row, servers, now, words)
            end
            if number % fleet.at_once == 0 then
                ngx.sleep(0)
            end
        end
        parts[#parts + 1] = "</tbody>\n</table>\n"
    end
    parts[#parts + 1] = filled('<p class="soft" id="none"{=hidden}>{no_match}</p>\n',
        { no_match = words.no_match, hidden = (shown > 0 or #rows == 0) and " hidden" or "" })
    return concat(parts)
end

return _M
