-- container-healthcheck 2.1.0: what the page says, in each of its languages. Pure.
--
-- Reasons are not among them: they stand on the page as in the log, where people search for them.

local ipairs, tonumber = ipairs, tonumber

local _M = { version = "2.1.0" }

local ENGLISH = {
    tag = "en",
    html_tag = "en",
    other_tag = "zh",
    other_language = "中文",
    nowhere = { "app served nowhere", "apps served nowhere" },
    unserved = "no server serves it",
    in_trouble = { "app in trouble", "apps in trouble" },
    away = { "server in trouble", "servers in trouble" },
    drained = { "drained", "drained" },
    healthy = { "healthy", "healthy" },
    all_well = "All apps are healthy",
    no_apps = "No app is known",
    no_match = "No app matches the filter.",
    no_servers = "No server is watched: no request for an app has come yet.",
    no_dictionary = "The line with lua_shared_dict is missing: requests go the stock way.",
    gateway = "Gateway",
    version = "Version",
    servers = "Servers",
    app = "App",
    filter = "App",
    trouble_only = "trouble only",
    apply = "Filter",
    json = "JSON",
    heard = "heard ",
    ago = " ago",
    never_heard = "never heard",
    unknown_server = "nothing is known",
    faulty_server = "all apps down",
    absent = "not here",
    failed = "a request failed just now",
    not_answering = "The gateway does not answer. What you see is from",
    as_of = "As of",
    colon = ": ",
    units = { "s", "min", "h", "d" },
    states = { up = "up", unknown = "unknown", down = "down" },
    codes = {
        [10] = "Docker away",
        [11] = "Docker away",
        [12] = "no container",
        [13] = "not running",
        [14] = "not answering",
        [15] = "drained",
    },
}

local CHINESE = {
    tag = "zh",
    html_tag = "zh-CN",
    other_tag = "en",
    other_language = "English",
    nowhere = { "个应用没有可用服务器", "个应用没有可用服务器" },
    unserved = "没有可用服务器",
    in_trouble = { "个应用异常", "个应用异常" },
    away = { "台服务器异常", "台服务器异常" },
    drained = { "个已摘除", "个已摘除" },
    healthy = { "个正常", "个正常" },
    all_well = "所有应用正常",
    no_apps = "还不知道任何应用",
    no_match = "没有符合条件的应用。",
    no_servers = "没有监视任何服务器：还没有收到应用请求。",
    no_dictionary = "缺少 lua_shared_dict 一行：请求按原方式转发。",
    gateway = "网关",
    version = "版本",
    servers = "服务器",
    app = "应用",
    filter = "应用",
    trouble_only = "只看异常",
    apply = "筛选",
    json = "JSON",
    heard = "",
    ago = "前有应答",
    never_heard = "从未应答",
    unknown_server = "状态未知",
    faulty_server = "所有应用不可用",
    absent = "不在此服务器",
    failed = "刚有请求失败",
    not_answering = "网关没有应答，以下内容截至",
    as_of = "截至",
    colon = "：",
    units = { "秒", "分钟", "小时", "天" },
    states = { up = "正常", unknown = "未知", down = "不可用" },
    codes = {
        [10] = "Docker 不可用",
        [11] = "Docker 不可用",
        [12] = "没有容器",
        [13] = "未运行",
        [14] = "无应答",
        [15] = "已摘除",
    },
}

local LANGUAGES = { en = ENGLISH, zh = CHINESE }

-- How much an item of an Accept header is liked: 1 when it does not say, 0 when it talks nonsense.
function _M.quality_of(item)
    local text = item:match(";%s*[qQ]%s*=%s*([^;%s]*)") or "1"
    return text:find("^[%d.]+$") and tonumber(text) or 0
end

-- The language asked for, else the best liked one of the header Accept-Language, else English.
function _M.wanted(asked, accepted)
    if LANGUAGES[asked or ""] then
        return LANGUAGES[asked]
    end
    local best, liking = ENGLISH, 0
    for item in (accepted or ""):gmatch("[^,]+") do
        local tag = item:match("^%s*(%a+)")
        local quality = _M.quality_of(item)
        local words = tag and LANGUAGES[tag:lower()]
        if words and quality > liking then
            best, liking = words, quality
        end
    end
    return best
end

-- How long that is, in the largest unit that fits: the page's script says it in the same way.
function _M.age(seconds, words)
    local left = seconds > 0 and seconds or 0
    for index, size in ipairs({ 60, 60, 24 }) do
        if left < size then
            return math.floor(left) .. " " .. words.units[index]
        end
        left = left / size
    end
    return math.floor(left) .. " " .. words.units[4]
end

return _M
