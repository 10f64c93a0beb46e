"""What is no app and no APPO server: it is neither watched nor listed, and takes no room."""

from __future__ import annotations

import re

import pytest

from sandbox.gateway import GATEWAY_PORT, Gateway
from sandbox.running_service import ask
from sandbox.waiting import wait_for
from tests.gateway.asking import APP, ask_often, await_up, from_upstream, stand_in
from tests.gateway.made_up import MadeUp

OWN = "container_healthcheck_appo"
PLACES = 64


@pytest.mark.parametrize(
    ("name", "servers"),
    [
        (OWN, '{ addr = "0.0.0.1:80", name = "0.0.0.1", weight = 1 }'),
        # What nginx makes of `proxy_pass http://127.0.0.9:18010;`.
        ("127.0.0.9", '{ addr = "127.0.0.9:18010", weight = 0 }'),
    ],
    ids=["the module's own", "implicit"],
)
def test_an_upstream_that_is_no_app(three: list[MadeUp], name: str, servers: str) -> None:
    """It goes the stock way, which leads nowhere, and leaves nothing behind."""
    app = f'{{ addr = "{three[0].name}", name = "appo", weight = 1 }}'
    upstreams = stand_in({APP: app, name: servers})
    with Gateway([three[0].name], include=upstreams, edit=from_upstream) as gateway:
        await_up(gateway, three[0])
        for method in ("GET", "POST"):
            assert gateway.get(f"/o/{name}/", method=method).status == 502
        assert set(gateway.status()) == {three[0].name}
        assert all("unknown -> known" in line for line in gateway.changes())


def _quick(text: str) -> str:
    for name, old, new in (
        ("TRIAL", "30", "1"),
        ("LEAST_TRIAL", "4", "1"),
        ("TOUCH", "10", "0.2"),
        ("STRANGE_FOR", "60", "2"),
    ):
        text = re.sub(rf"(?m)^local {name} = {old}\b", f"local {name} = {new}", text)
    return text


def test_a_server_that_never_answers_as_the_service_is_soon_forgotten(three: list[MadeUp]) -> None:
    """It is tried again later, the log speaks of it once, and requests get there as ever."""
    good, stranger, _ = three
    stranger.say = lambda handler: handler.answer(b"<html>", 404)
    with Gateway([good.name, stranger.name], edit_lua=_quick) as gateway:
        await_up(gateway, good)

        def is_listed() -> bool:
            gateway.get(f"/o/{APP}/")
            return stranger.name in gateway.status()

        for _ in range(2):
            wait_for(is_listed, "a trial")
            wait_for(lambda: not is_listed(), "the stranger to be forgotten")
        assert sum(stranger.name in line for line in gateway.changes()) == 1
        assert set(ask_often(gateway)) == {good.address}
        good.status = 502
        assert set(ask_often(gateway, 3)) == {stranger.address}
        good.status = 200
        wait_for(is_listed, "another trial")
        stranger.say = good.say
        await_up(gateway, stranger)
        wait_for(lambda: set(ask_often(gateway, 10)) == {good.address, stranger.address}, "turns")


def test_strangers_take_no_place_from_a_server_that_answers(three: list[MadeUp]) -> None:
    good = three[0]
    strangers = [f"127.0.2.{number}:8010" for number in range(1, PLACES + 10)]
    with Gateway([*strangers, good.name], edit_lua=_quick) as gateway:
        await_up(gateway, good)
        wait_for(lambda: gateway.get(f"/o/{APP}/").body == good.address.encode(), "its turn")
        for _ in range(3):
            await_up(gateway, good)
            assert len(gateway.status()) <= PLACES
        assert sum("internal error" in line for line in gateway.changes()) == 0


def test_a_server_that_has_answered_once_keeps_its_place(three: list[MadeUp]) -> None:
    """However long it is silent, the operator finds it on the status page."""
    good, silent, _ = three
    with Gateway([good.name, silent.name], edit_lua=_quick) as gateway:
        await_up(gateway, good, silent)
        silent.say = lambda handler: handler.raw(b"")
        gateway.await_state(silent.name, APP, "unknown")
        asked = silent.lists
        # A second apart and more: longer than a stranger would stay.
        wait_for(lambda: silent.lists >= asked + 4, "four questions")
        assert silent.name in gateway.status()


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
