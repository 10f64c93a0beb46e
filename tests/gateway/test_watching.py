"""How the servers are watched, also when a watcher is killed, and what of that the log says."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable

import pytest

from sandbox.gateway import Gateway
from sandbox.waiting import wait_for
from tests.gateway.asking import APP, ask_often, await_up
from tests.gateway.made_up import Handler, MadeUp, Verdicts

STATUS = "/container-healthcheck-gateway"


def _page(gateway: Gateway) -> list[dict[str, object]]:
    """What the status page says; nothing when the worker that was asked was being killed."""
    with contextlib.suppress(OSError):
        return list(json.loads(gateway.get(STATUS).body)["servers"])
    return []


def test_a_killed_watcher_leaves_no_gap(three: list[MadeUp], verdicts: list[Verdicts]) -> None:
    """What was heard counts until another worker has asked."""
    up, down, _ = three
    verdicts[1].change({APP: 13})
    with Gateway([up.name, down.name]) as gateway:
        await_up(gateway, up)
        gateway.await_state(down.name, APP, "down")
        watchers = {each["watched_by"] for each in gateway.status().values()}
        states: set[object] = set()

        def are_watched_by_others() -> bool:
            page = _page(gateway)
            states.update(each["state"] for each in page)
            with contextlib.suppress(OSError):
                states.add(gateway.get(f"/o/{APP}/").body)
            now = {each.get("watched_by") for each in page}
            return len(page) == 2 and None not in now and not now & watchers

        for pid in watchers:
            os.kill(int(pid), signal.SIGKILL)
        asked = up.lists
        wait_for(are_watched_by_others, "new watchers")
        wait_for(lambda: up.lists > asked + 1, "their questions")
        assert are_watched_by_others()
        assert states == {"known", up.address.encode()}


def _settled_after(seconds: int) -> Callable[[str], str]:
    return lambda text: text.replace("local SETTLED = 3", f"local SETTLED = {seconds}")


def test_an_app_that_comes_back_is_one_line(three: list[MadeUp], verdicts: list[Verdicts]) -> None:
    """Though the service says up, down and up again, as its workers see it; requests obey."""
    first, second, _ = three
    with Gateway([first.name, second.name], edit_lua=_settled_after(6)) as gateway:
        await_up(gateway, first, second)
        for code, state in ((12, "down"), (0, "up"), (14, "down"), (0, "up"), (13, "down")):
            verdicts[0].change({APP: code})
            gateway.await_state(first.name, APP, state)
        assert set(ask_often(gateway)) == {second.address}
        verdicts[0].change({APP: 0})
        gateway.await_state(first.name, APP, "up")
        assert set(ask_often(gateway)) == {first.address, second.address}

        def lines() -> list[str]:
            return [line for line in gateway.changes() if f"{first.name} {APP}: " in line]

        wait_for(lambda: len(lines()) >= 2, "the line")
        assert [line.partition(": ")[2] for line in lines()] == [
            "up -> down, code 12 (no container)",
            "down -> up",
        ]


def test_a_reload_loses_no_line(three: list[MadeUp], verdicts: list[Verdicts]) -> None:
    first, second, _ = three
    with Gateway([first.name, second.name], edit_lua=_settled_after(3600)) as gateway:
        await_up(gateway, first, second)
        verdicts[0].change({APP: 13})
        gateway.await_state(first.name, APP, "down")
        verdicts[0].change({APP: 0})
        gateway.await_state(first.name, APP, "up")
        assert not any("down -> up" in line for line in gateway.changes())
        gateway.reload()
        wait_for(lambda: any("down -> up" in line for line in gateway.changes()), "the line")


def _never(handler: Handler) -> None:
    handler.connection.recv(1)
    handler.close_connection = True


def _nginx_lines(gateway: Gateway, address: str) -> list[str]:
    """What nginx itself logged about connections to that server."""
    lines = gateway.nginx.log().splitlines()
    return [line for line in lines if address in line and "container-healthcheck: " not in line]


@pytest.mark.parametrize("say", [_never, lambda handler: handler.raw(b"")], ids=["late", "closed"])
def test_what_nginx_does_not_log(three: list[MadeUp], say: Callable[[Handler], None]) -> None:
    """As http.conf promises: one line when a server begins to be silent, however long it is."""
    good, silent, _ = three
    with Gateway([good.name, silent.name]) as gateway:
        await_up(gateway, good, silent)
        silent.say = say
        gateway.await_state(silent.name, APP, "unknown")
        asked = silent.lists
        wait_for(lambda: silent.lists >= asked + 3, "three more questions")
        assert sum(silent.name in line for line in gateway.changes()) == 2
        assert _nginx_lines(gateway, silent.address) == []


def test_what_nginx_does_log(three: list[MadeUp]) -> None:
    """As http.conf says: a connection that this host itself fails at once."""
    good, nowhere = three[0], "198.51.100.1"
    with Gateway([good.name, f"{nowhere}:8010"]) as gateway:
        await_up(gateway, good)
        wait_for(lambda: len(_nginx_lines(gateway, nowhere)) >= 2, "two lines")
        assert all("connect() to" in line for line in _nginx_lines(gateway, nowhere))
        assert sum(nowhere in line for line in gateway.changes()) == 1
