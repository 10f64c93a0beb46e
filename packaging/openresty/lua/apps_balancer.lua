-- container-healthcheck 2.1.0: for locations that name this file in rewrite_by_lua_file.
local ok, err = pcall(function() require("container_healthcheck").rewrite() end)
if not ok then
    ngx.var.target_up = ngx.var.app
    -- One line in the log for each worker.
    if not package.loaded.container_healthcheck_complained then
        package.loaded.container_healthcheck_complained = true
        ngx.log(ngx.ERR, "container-healthcheck: falling back to stock routing: ", err)
    end
end
