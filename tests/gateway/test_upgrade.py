"""What was written for version 2.1.0 goes on working; and the two integrations change places."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sandbox.gateway import GATEWAY_PORT, INSTALLED, PACKAGING, Client, Gateway, traffic
from sandbox.waiting import wait_for
from tests.gateway.asking import APP, ask_often, await_up
from tests.gateway.made_up import MadeUp, Verdicts

# The files of version 2.1.0, as its chapter had them changed.
OLD_LOCATION = """
location ~ ^/o/([^/]+) {
    set $app "$1";
    set $target_up "";
    rewrite_by_lua_file LUA/apps_balancer.lua;
    log_by_lua_block { if ngx.status >= 500 then require("container_healthcheck").note() end }
    proxy_pass http://$target_up;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $http_host;
    proxy_read_timeout 600;
}
"""
OLD_HTTP = """
lua_package_path "LUA/?.lua;;";
lua_shared_dict container_healthcheck 4m;
lua_socket_log_errors off;
init_worker_by_lua_block { require("container_healthcheck").start() }
map $host $container_healthcheck_upstream {
    default container_healthcheck_appo;
}
upstream container_healthcheck_appo {
    server 0.0.0.1;
    balancer_by_lua_file LUA/appo_balancer.lua;
    keepalive 64;
    keepalive_timeout 10s;
}
"""


def _as_of_2_1_0(gateway: Gateway, *, http: bool, location: bool) -> Callable[[str], str]:
    """Changes a configuration back to the old files, or to one of them."""

    def old(text: str, name: str, before: str) -> str:
        new = (PACKAGING / "openresty" / name).read_text().replace(INSTALLED, str(gateway.lua))
        assert new in text
        return text.replace(new, before.replace("LUA", str(gateway.lua)))

    def edit(text: str) -> str:
        text = old(text, "http.conf", OLD_HTTP) if http else text
        return old(text, "location.conf", OLD_LOCATION) if location else text

    return edit


def _served(client: Client) -> None:
    client.goes_on()
    assert not any(each.failed for each in client.results())


@pytest.mark.parametrize("http", [True, False], ids=["edited http.conf", "http.conf of today"])
def test_a_location_of_2_1_0(three: list[MadeUp], verdicts: list[Verdicts], http: bool) -> None:
    """With today's Lua, whether the operator's http.conf stayed or not; POSTs that fail as well."""
    first, second, _ = three
    gateway = Gateway([first.name, second.name])
    edit = _as_of_2_1_0(gateway, http=http, location=True)
    gateway.nginx.write(edit(gateway.configuration([first.name, second.name])))
    with gateway:
        await_up(gateway, first, second)
        verdicts[0].change({APP: 13})
        gateway.await_state(first.name, APP, "down")
        assert set(ask_often(gateway)) == {second.address}
        verdicts[0].change({APP: 0})
        await_up(gateway, first)
        first.status = 502
        assert set(ask_often(gateway)) == {second.address}
        first.status = 200
        wait_for(lambda: first.address in ask_often(gateway, 6), "its turn to come back")
        second.status = 504
        assert ask_often(gateway, 30, "POST")["504"] <= 6
        assert not any("internal error" in line for line in gateway.changes())


def test_an_upgrade_under_load_in_both_directions(three: list[MadeUp]) -> None:
    """New Lua, then new files, then the line in the upstream, and all the way back."""
    servers = [each.name for each in three[:2]]
    gateway = Gateway(servers, apps=[APP])
    new = gateway.configuration(servers)
    steps = [
        _as_of_2_1_0(gateway, http=True, location=True)(new),
        _as_of_2_1_0(gateway, http=False, location=True)(new),
        new,
        _in_the_upstream(gateway, servers),
    ]
    gateway.nginx.write(steps[0])
    with gateway:
        await_up(gateway, *three[:2])
        with traffic(f"http://127.0.0.1:{GATEWAY_PORT}/o/{APP}/") as client:
            for step in [*steps[1:], *reversed(steps[:-1])]:
                gateway.nginx.write(step)
                gateway.reload()
                _served(client)
            assert not any(each.failed for each in client.finish())
        assert not any("stock routing" in line for line in gateway.changes())


def _in_the_upstream(gateway: Gateway, servers: list[str]) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Gateway, "way", "upstream")
        return gateway.configuration(servers)


@pytest.mark.usefixtures("way")
def test_an_error_page_does_not_hide_a_failure(three: list[MadeUp]) -> None:
    """A POST that failed is noticed, whatever page the site shows for it."""
    first, second, _ = three

    def edit(text: str) -> str:
        page = 'error_page 502 = /sorry; location = /sorry { return 200 "sorry"; }'
        page = f"proxy_intercept_errors on; {page} set $appo_servers"
        return text.replace("set $appo_servers", page, 1)

    with Gateway([first.name, second.name], edit=edit) as gateway:
        await_up(gateway, first, second)
        first.status = 502
        counted = ask_often(gateway, 30, "POST")
        assert 1 <= counted["sorry"] <= 6, counted
        assert not any("internal error" in line for line in gateway.changes())


def test_websockets(three: list[MadeUp]) -> None:
    """Their headers get through; other requests keep connections to the servers."""
    first = three[0]
    with Gateway([first.name]) as gateway:
        await_up(gateway, first)
        gateway.get(f"/o/{APP}/", headers={"Upgrade": "websocket", "Connection": "Upgrade"})
        assert (first.headers["Upgrade"], first.headers["Connection"]) == ("websocket", "upgrade")
        gateway.get(f"/o/{APP}/")
        assert not {"Upgrade", "Connection"} & set(first.headers)
