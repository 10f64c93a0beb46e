-- container-healthcheck 2.1.0: for http.conf of version 2.1.0, which names this file.
pcall(function() require("container_healthcheck").balance() end)
