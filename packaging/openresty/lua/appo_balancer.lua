require("container_healthcheck").balance()
