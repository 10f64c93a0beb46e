"""How the servers are watched, also when a watcher is killed, and what of that the log says."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import time
from collections.abc import Callable

import pytest

import sandbox.gateway
from sandbox.gateway import GATEWAY_PORT, Gateway
from sandbox.waiting import wait_for
from tests.gateway.asking import APP, ask_often, await_up, from_upstream, stand_in
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


# --- nginx loses what watches


def _asked_in_turn(server: MadeUp, questions: int) -> None:
    """Waits until the server was asked so often from now on, one question after another."""
    wanted = server.lists + questions
    wait_for(lambda: server.lists >= wanted, f"{questions} questions to {server.name}")
    assert server.most_at_once == 1


def _all_connections(gateway: Gateway, servers: list[MadeUp]) -> list[socket.socket]:
    """Requests to apps that do not answer, until nginx has no connection left."""
    for each in servers:
        each.may_answer.clear()
    used: list[socket.socket] = []

    def one_more() -> bool:
        connection = socket.create_connection(("127.0.0.1", GATEWAY_PORT))
        used.append(connection)
        connection.sendall(f"GET /o/{APP}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return gateway.nginx.log().count("worker_connections are not enough") >= 20

    wait_for(one_more, "nginx to have no connection left")
    return used


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_no_connection_is_left(
    three: list[MadeUp],
    verdicts: list[Verdicts],
    workers: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For longer than two questions take; then the watching goes on, one question at a time."""
    monkeypatch.setattr(sandbox.gateway, "WORKERS", workers)
    servers = three[:2]
    with Gateway([each.name for each in servers], connections=64) as gateway:
        await_up(gateway, *servers)
        used = _all_connections(gateway, servers)
        end = time.monotonic() + 7
        wait_for(lambda: time.monotonic() > end, "the questions under way to end")
        for each in servers:
            each.may_answer.set()
        for connection in used:
            connection.close()
        for each in servers:
            _asked_in_turn(each, 3)
        await_up(gateway, *servers)
        verdicts[0].change({APP: 13})
        gateway.await_state(servers[0].name, APP, "down")
        assert set(ask_often(gateway)) == {servers[1].address}


@pytest.mark.slow
def test_few_timers_may_run(three: list[MadeUp], verdicts: list[Verdicts]) -> None:
    """However many servers there are, watching takes one; two while a loop hands over."""

    def few(text: str) -> str:
        return text + "lua_max_running_timers 3;"

    def often(text: str) -> str:
        return re.sub(r"local RUN = 60\b", "local RUN = 5", text)

    with Gateway([each.name for each in three], edit=few, edit_lua=often) as gateway:
        await_up(gateway, *three)
        watchers = {each["watched_by"] for each in gateway.status().values()}
        for each in three:
            _asked_in_turn(each, 6)
        assert {each["watched_by"] for each in gateway.status().values()} == watchers
        verdicts[0].change({APP: 13})
        gateway.await_state(three[0].name, APP, "down")
        assert "lua_max_running_timers are not enough" not in gateway.nginx.log()
        assert not any("internal error" in line for line in gateway.changes())


def _upstreams(*servers: MadeUp) -> str:
    peers = "".join(f'{{ addr = "{each.name}", name = "x", weight = 1 }},' for each in servers)
    return stand_in({APP: peers, "OPEN_PAAS": '{ addr = "127.0.2.1:80", name = "x", weight = 1 }',
                     "t.bk_iam": '{ addr = "127.0.2.2:80", name = "x", weight = 1 }'})  # fmt: skip


def test_servers_are_watched_before_the_first_request(three: list[MadeUp]) -> None:
    """Those of app upstreams, and no internal services or test apps."""
    first, second, _ = three
    with Gateway([first.name], include=_upstreams(first, second), edit=from_upstream) as gateway:
        for each in (first, second):
            gateway.await_state(each.name, APP, "up")
        assert first.asked == second.asked == 0
        assert set(gateway.status()) == {first.name, second.name}


@pytest.mark.slow
def test_the_first_timer_is_lost(three: list[MadeUp]) -> None:
    """The site's own Lua has the only one that may run. They are watched without any request."""

    def hogged(text: str) -> str:
        text = text.replace(
            "local ok, err = pcall(function()",
            "ngx.timer.at(0, function() ngx.sleep(3) end)\n    local ok, err = pcall(function()",
            1,
        )
        return from_upstream(text) + "lua_max_running_timers 1;"

    first, second, _ = three
    with Gateway([first.name], include=_upstreams(first, second), edit=hogged) as gateway:
        wait_for(
            lambda: "lua_max_running_timers are not enough" in gateway.nginx.log(), "a lost timer"
        )
        for each in (first, second):
            _asked_in_turn(each, 3)
        assert first.asked == second.asked == 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_only_worker_ends(
    three: list[MadeUp], number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At any point: nginx starts another, which watches as soon as the lease is over."""
    monkeypatch.setattr(sandbox.gateway, "WORKERS", 1)
    with Gateway([each.name for each in three]) as gateway:
        await_up(gateway, *three)
        for _ in range(3):
            (worker,) = gateway.nginx.workers()
            os.kill(worker, number)
            wait_for(lambda: worker not in gateway.nginx.workers(), "the worker to end")  # noqa: B023
            asked = [each.lists for each in three]
            wait_for(
                lambda: all(each.lists > had + 1 for each, had in zip(three, asked, strict=True)),  # noqa: B023
                "questions",
            )
        assert all(each.most_at_once <= 2 for each in three)
