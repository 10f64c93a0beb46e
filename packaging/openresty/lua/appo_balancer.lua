-- container-healthcheck 2.1.0: for balancer_by_lua_file in the upstream.
package.loaded.container_healthcheck.balance()
