local found, gateway = pcall(require, "container_healthcheck")
if found then
    gateway.rewrite()
else
    -- The stock way, and one line in the log for each worker.
    ngx.log(ngx.ERR, "container-healthcheck: requests go the stock way: ", gateway)
    package.loaded.container_healthcheck = {
        rewrite = function() ngx.var.target_up = ngx.var.app end,
        note = function() end,
    }
    ngx.var.target_up = ngx.var.app
end
