"""What is no app and no APPO server: it is neither watched nor listed, and takes no room."""

from __future__ import annotations

import re

import pytest

from sandbox.gateway import GATEWAY_PORT, Gateway
from sandbox.running_service import ask
from sandbox.waiting import wait_for
from tests.gateway.asking import APP, ask_often, await_up, from_upstream, stand_in
from tests.gateway.made_up import MadeUp, Verdicts

OWN = "container_healthcheck_appo"


@pytest.mark.parametrize(
    ("name", "servers"),
    [
        (OWN, '{ addr = "0.0.0.1:80", name = "0.0.0.1", weight = 1 }'),
        (OWN.capitalize(), '{ addr = "0.0.0.1:80", name = "0.0.0.1", weight = 1 }'),
        # What nginx makes of `proxy_pass http://127.0.0.9:18010;`.
        ("127.0.0.9", '{ addr = "127.0.0.9:18010", weight = 0 }'),
    ],
    ids=["the module's own", "the module's own in another case", "implicit"],
)
def test_an_upstream_that_is_no_app(three: list[MadeUp], name: str, servers: str) -> None:
    """It is routed as before, which leads nowhere, and leaves nothing behind."""
    app = f'{{ addr = "{three[0].name}", name = "appo", weight = 1 }}'
    upstreams = stand_in({APP: app, name: servers})
    with Gateway([three[0].name], include=upstreams, edit=from_upstream) as gateway:
        await_up(gateway, three[0])
        for method in ("GET", "POST"):
            assert gateway.get(f"/o/{name}/", method=method).status == 502
        assert set(gateway.status()) == {three[0].name}
        assert all("unknown -> known" in line for line in gateway.changes())


def _quick(text: str) -> str:
    for name, old, new in (("FOREIGN_PAUSE", "30", "1"), ("UNKNOWN_PAUSE", "10", "1")):
        text = re.sub(rf"\b{name}(.*?)\b{old}\b", rf"{name}\g<1>{new}", text, count=1)
    return text


def test_a_server_that_becomes_one_of_ours(three: list[MadeUp]) -> None:
    """It is asked now and then, and counts from its first verdict on."""
    good, stranger, _ = three
    stranger.say = lambda handler: handler.answer(b"<html>", 404)
    with Gateway([good.name, stranger.name], edit_lua=_quick) as gateway:
        await_up(gateway, good)
        wait_for(lambda: stranger.lists >= 3, "more questions")
        assert sum(stranger.name in line for line in gateway.changes()) == 1
        stranger.say = Verdicts({APP: 13})
        gateway.await_state(stranger.name, APP, "down")
        assert set(ask_often(gateway)) == {good.address}
        stranger.say = good.say
        await_up(gateway, stranger)
        assert set(ask_often(gateway, 10)) == {good.address, stranger.address}


def test_servers_that_never_answer_do_not_keep_one_that_does_from_being_watched(
    three: list[MadeUp],
) -> None:
    good = three[0]
    silent = [f"127.0.2.{number}:8010" for number in range(1, 74)]
    with Gateway([*silent, good.name], edit_lua=_quick) as gateway:
        await_up(gateway, good)
        assert set(ask_often(gateway, 10)) == {good.address}
        assert len(gateway.status()) == len(silent) + 1
        assert sum("internal error" in line for line in gateway.changes()) == 0


def _few(text: str) -> str:
    return text.replace("local MAX_SERVERS = 256", "local MAX_SERVERS = 2")


def test_more_servers_than_are_watched(three: list[MadeUp]) -> None:
    """The others are unknown; the log says so."""
    with Gateway([each.name for each in three], edit_lua=_few) as gateway:
        await_up(gateway, *three[:2])
        assert set(gateway.status()) == {each.name for each in three[:2]}
        assert set(ask_often(gateway, 10)) == {each.address for each in three[:2]}
        assert sum("more than 2 servers" in line for line in gateway.changes()) == 1


def test_a_server_that_is_silent_is_still_listed(three: list[MadeUp]) -> None:
    """However long it is silent, the operator finds it on the status page."""
    good, silent, _ = three
    with Gateway([good.name, silent.name], edit_lua=_quick) as gateway:
        await_up(gateway, good, silent)
        silent.say = lambda handler: handler.raw(b"")
        gateway.await_state(silent.name, APP, "unknown")
        asked = silent.lists
        wait_for(lambda: silent.lists >= asked + 4, "four questions")
        assert silent.name in gateway.status()


def test_a_backup_in_the_apps_own_upstream(
    three: list[MadeUp], verdicts: list[Verdicts], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gets requests while the app is down on the other server; in nginx's own turn, none."""
    monkeypatch.setattr(Gateway, "way", "upstream")
    first, backup, _ = three
    peers = (
        f'{{ addr = "{first.name}", name = "x", weight = 1 }},'
        f'{{ addr = "{backup.name}", name = "x", weight = 1, backup = true }}'
    )

    def edit(text: str) -> str:
        stock = f"server {backup.name} max_fails=1 fail_timeout=30s;"
        assert stock in text
        return from_upstream(text.replace(stock, f"server {backup.name} backup;"))

    include = stand_in({APP: peers})
    with Gateway([first.name, backup.name], include=include, edit=edit) as gateway:
        for server in (first, backup):
            gateway.await_state(server.name, APP, "up")
        assert set(ask_often(gateway, 20)) == {first.address}
        verdicts[0].change({APP: 13})
        gateway.await_state(first.name, APP, "down")
        assert set(ask_often(gateway, 20)) == {backup.address}
        verdicts[1].change({APP: 13})
        gateway.await_state(backup.name, APP, "down")
        assert set(ask_often(gateway, 20)) == {first.address}


def test_failures_of_other_locations_say_nothing(three: list[MadeUp]) -> None:
    """No phase of ours runs there, so nginx has no variable of ours to warn about."""
    other = """
    server {
        listen 127.0.0.1:8090;
        location /fails { return 500; }
        location /nobody { proxy_pass http://127.0.0.9:1; }
    }"""

    def in_our_server(text: str) -> str:
        return text.replace(
            "set $appo_servers", "location /fails { return 500; } set $appo_servers"
        )

    with Gateway([three[0].name], include=other, edit=in_our_server) as gateway:
        await_up(gateway, three[0])
        assert ask(8090, "/fails").status == 500
        assert ask(8090, "/nobody").status == 502
        assert ask(GATEWAY_PORT, "/fails").status == 500
        assert "uninitialized" not in gateway.nginx.log()
