-- container-healthcheck 2.1.0: for rewrite_by_lua_file in the location of the apps.
local gateway = package.loaded.container_healthcheck
if not gateway then
    local found
    found, gateway = pcall(require, "container_healthcheck")
    if not found then
        -- The stock way, and one line in the log for each worker.
        ngx.log(ngx.ERR, "container-healthcheck: requests go the stock way: ", gateway)
        gateway = {
            rewrite = function() ngx.var.target_up = ngx.var.app end,
            note = function() end,
        }
        package.loaded.container_healthcheck = gateway
    end
end
gateway.rewrite()
