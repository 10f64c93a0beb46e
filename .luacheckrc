-- The gateway's Lua runs in nginx, on LuaJIT.
std = "ngx_lua"
max_line_length = 110
