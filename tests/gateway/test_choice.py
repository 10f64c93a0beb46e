"""Which server a request goes to, how the servers are watched, and what the operator sees."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import re
import signal
import time
from typing import Any

import pytest

from sandbox.gateway import GATEWAY_PORT, WORKERS, Gateway
from sandbox.running_service import ask
from sandbox.waiting import wait_for
from tests.gateway.asking import APP, ask_often, await_up, from_upstream, stand_in
from tests.gateway.made_up import Handler, MadeUp, Verdicts, envelope

STATUS = "/container-healthcheck-gateway"
pytestmark = pytest.mark.usefixtures("way")


def test_the_module_runs_on_either_side_of_openresty_1_15_8_3(
    three: list[MadeUp], request: pytest.FixtureRequest
) -> None:
    """That has lua-nginx-module 0.10.15. Which one this is depends on `--nginx-of`."""
    version = "location = /version { content_by_lua_block { ngx.say(ngx.config.ngx_lua_version) } }"
    server = f"server {{ listen 127.0.0.1:8090; {version} }}"
    with Gateway([three[0].name], include=server) as gateway:
        await_up(gateway, three[0])
        found = int(ask(8090, "/version").body)
    release = request.config.getoption("nginx_of")
    known = {"bullseye": 10013, "bookworm": 10023}
    assert found == known[release] if release in known else found > 10015


def test_equal_servers_take_turns(three: list[MadeUp]) -> None:
    with Gateway([each.name for each in three]) as gateway:
        await_up(gateway, *three)
        counted = ask_often(gateway, 60)
        # Each worker keeps its own turn.
        assert all(abs(counted[each.address] - 20) <= WORKERS for each in three), counted


def test_a_weight_of_none_takes_a_server_out(three: list[MadeUp]) -> None:
    first, second, _ = three
    with Gateway([f"{first.name}*0", second.name]) as gateway:
        await_up(gateway, second)
        assert set(ask_often(gateway, 10)) == {second.address}
        assert set(gateway.status()) == {second.name}


def test_turns_go_by_weight(three: list[MadeUp]) -> None:
    first, second, _ = three
    with Gateway([f"{first.name}*3", second.name]) as gateway:
        await_up(gateway, first, second)
        counted = ask_often(gateway, 80)
        assert abs(counted[first.address] - 60) <= 2 * WORKERS, counted


def test_up_before_unknown_before_down(three: list[MadeUp], verdicts: list[Verdicts]) -> None:
    up, unknown, down = three
    unknown.say = lambda handler: handler.answer(b"no service here", 502)
    verdicts[2].change({APP: 13})
    with Gateway([each.name for each in three]) as gateway:
        await_up(gateway, up)
        gateway.await_state(down.name, APP, "down")
        assert set(ask_often(gateway)) == {up.address}
        verdicts[0].change({APP: 14})
        gateway.await_state(up.name, APP, "down")
        assert set(ask_often(gateway)) == {unknown.address}
        # With all down, all get requests: a verdict never makes an outage.
        unknown.say = verdicts[0]
        gateway.await_state(unknown.name, APP, "down")
        assert set(ask_often(gateway)) == {each.address for each in three}


def test_an_app_that_a_service_does_not_list_is_down(
    three: list[MadeUp], verdicts: list[Verdicts]
) -> None:
    first, second, _ = three
    with Gateway([first.name, second.name]) as gateway:
        await_up(gateway, first, second)
        verdicts[0].change({"another": 0})
        gateway.await_state(first.name, APP, "down")
        assert set(ask_often(gateway)) == {second.address}
        assert any(f"{first.name} {APP}: up -> down, code 12" in each for each in gateway.changes())


def test_a_get_is_tried_on_the_next_server_and_a_post_fails_once(three: list[MadeUp]) -> None:
    """The server that failed is tried last for a while, also when nginx may not try again."""
    first, second, third = three
    with Gateway([each.name for each in three]) as gateway:
        await_up(gateway, *three)
        first.status = 502
        assert set(ask_often(gateway)) == {second.address, third.address}
        first.status, second.status = 200, 504
        began = time.monotonic()
        counted = ask_often(gateway, 40, "POST")
        assert counted["504"] <= 1 + (time.monotonic() - began) / 2, counted
        assert gateway.state(second.name, APP) == "up"
        second.status = 200
        wait_for(lambda: second.address in ask_often(gateway, 6, "POST"), "its turn to come back")


def test_all_failing_servers_are_still_tried(three: list[MadeUp]) -> None:
    with Gateway([each.name for each in three]) as gateway:
        await_up(gateway, *three)
        for server in three:
            server.status = 502
        assert set(ask_often(gateway, 10)) == {"502"}
        for server in three:
            server.status = 200
        assert "502" not in ask_often(gateway, 10)


def test_each_server_is_tried_once(three: list[MadeUp], verdicts: list[Verdicts]) -> None:
    """Also those that are down, and also when all have just failed."""
    verdicts[1].change({APP: 13})
    with Gateway([each.name for each in three]) as gateway:
        await_up(gateway, three[0], three[2])
        gateway.await_state(three[1].name, APP, "down")
        for server in three:
            server.status = 502
        for number in range(1, 7):
            before = [each.asked for each in three]
            assert gateway.get(f"/o/{APP}/").status == 502
            asked = [each.asked - had for each, had in zip(three, before, strict=True)]
            assert asked == [1, 1, 1], number


def test_answers_of_the_app_are_no_failures(three: list[MadeUp]) -> None:
    first, _, _ = three
    with Gateway([each.name for each in three]) as gateway:
        await_up(gateway, *three)
        for status in (404, 500, 503):
            first.status = status
            assert 3 <= ask_often(gateway, 30)[str(status)] <= 17


def test_connections_to_the_servers_are_kept(three: list[MadeUp]) -> None:
    first, _, _ = three
    with Gateway([first.name]) as gateway:
        await_up(gateway, first)
        assert ask_often(gateway, 60) == {first.address: 60}
        assert len(first.connections) <= WORKERS


def test_servers_come_and_go_and_change_order(
    three: list[MadeUp], verdicts: list[Verdicts]
) -> None:
    first, second, third = three

    def quick(text: str) -> str:
        return text.replace("local FORGET = 600", "local FORGET = 1").replace(
            "local TOUCH = 10", "local TOUCH = 0.2"
        )

    with Gateway([first.name, second.name], edit_lua=quick) as gateway:
        await_up(gateway, first, second)
        verdicts[0].change({APP: 13})
        gateway.await_state(first.name, APP, "down")
        gateway.reload([third.name, second.name, first.name])
        await_up(gateway, third)
        assert set(ask_often(gateway)) == {second.address, third.address}
        gateway.reload([first.name, third.name])
        wait_for(
            lambda: gateway.get(f"/o/{APP}/").status == 200 and second.name not in gateway.status(),
            "the server that went to be forgotten",
        )
        wait_for(lambda: second.at_once == 0, "the last question to end")
        asked = second.lists
        lists = third.lists
        wait_for(lambda: gateway.get(f"/o/{APP}/") and third.lists > lists + 1, "more questions")
        assert second.lists == asked
        assert set(ask_often(gateway)) == {third.address}


def test_watching_costs_one_request_in_two_seconds(
    three: list[MadeUp], verdicts: list[Verdicts]
) -> None:
    """However many users and apps there are; and no two questions at once."""
    for each in verdicts:
        each.change({f"app{number}": 0 for number in range(500)} | {APP: 0})
    with Gateway([each.name for each in three]) as gateway:
        await_up(gateway, *three)
        began, asked = time.monotonic(), [each.lists for each in three]
        while time.monotonic() < began + 8:
            gateway.get(f"/o/{APP}/")
        for server, before in zip(three, asked, strict=True):
            assert server.lists - before <= (time.monotonic() - began) / 2 + 1
            assert server.most_at_once == 1


def test_a_frozen_watcher_is_replaced(three: list[MadeUp], verdicts: list[Verdicts]) -> None:
    """And what it says when it wakes up is not believed."""
    first, second, _ = three
    with Gateway([first.name, second.name]) as gateway:
        await_up(gateway, first, second)
        watcher = gateway.status()[first.name]["watched_by"]
        other = next(pid for pid in gateway.nginx.workers() if pid != watcher)
        os.kill(watcher, signal.SIGSTOP)
        try:
            wait_for(lambda: _seen(gateway, first).get("watched_by") == other, "a new watcher")
            verdicts[0].change({APP: 13})
            wait_for(lambda: '"down"' in json.dumps(_seen(gateway, first)), "the news")
        finally:
            os.kill(watcher, signal.SIGCONT)
        asked = first.lists
        wait_for(lambda: first.lists >= asked + 2, "two more questions")
        assert gateway.status()[first.name]["watched_by"] == other
        assert set(ask_often(gateway)) == {second.address}


def _seen(gateway: Gateway, server: MadeUp) -> dict[str, Any]:
    """What the status page says; nothing when the kernel gave the frozen worker the connection."""
    with contextlib.suppress(TimeoutError):
        for each in gateway.get(STATUS, timeout=1).json["servers"]:
            if each["server"] == server.name:
                return dict(each)
    return {}


def test_a_service_that_changes_its_mind_all_the_time_is_not_asked_in_a_circle(
    three: list[MadeUp],
) -> None:
    first, second, _ = three
    codes = itertools.cycle([0, 13])
    first.say = lambda handler: handler.answer(
        envelope({APP: next(codes)}), headers={"ETag": f'"{time.monotonic()}"'}
    )
    with Gateway([first.name, second.name]) as gateway:
        await_up(gateway, second)
        began, asked = time.monotonic(), first.lists
        while time.monotonic() < began + 2:
            assert gateway.get(f"/o/{APP}/").status == 200
        assert first.lists - asked <= 10 * (time.monotonic() - began) + 5
        assert first.most_at_once == 1


def test_a_service_that_does_not_wait_is_asked_every_two_seconds(three: list[MadeUp]) -> None:
    first, _, _ = three
    first.say = lambda handler: handler.answer(envelope({APP: 0}))
    with Gateway([first.name]) as gateway:
        await_up(gateway, first)
        began, asked = time.monotonic(), first.lists
        wait_for(lambda: first.lists >= asked + 2, "two more questions")
        assert time.monotonic() - began > 2
        assert gateway.state(first.name, APP) == "up"


def _alone(text: str) -> str:
    text = re.sub(r"map \$host \$container_healthcheck_upstream \{.*?\}", "", text, flags=re.S)
    text = re.sub(r"upstream container_healthcheck_appo \{.*?\n\}", "", text, flags=re.S)
    return re.sub(r"(init_worker|log)_by_lua_block \{ .*", "", text)


def test_apps_balancer_works_alone(three: list[MadeUp], verdicts: list[Verdicts]) -> None:
    """Without the upstream block `$target_up` is the chosen server."""
    first, second, _ = three
    with Gateway([first.name, second.name], edit=_alone) as gateway:
        await_up(gateway, first, second)
        assert set(ask_often(gateway)) == {first.address, second.address}
        verdicts[0].change({APP: 12})
        gateway.await_state(first.name, APP, "down")
        assert set(ask_often(gateway)) == {second.address}
        assert set(ask_often(gateway, 5, "POST")) == {second.address}


APP_UPSTREAM = {
    APP: """
    { addr = { "127.0.0.3:8010", "127.0.0.4:8010" }, name = "appo", weight = 2 },
    { addr = "127.0.0.5:8010", name = "127.0.0.5:8010", weight = 1, backup = true },
    { addr = "127.0.0.6:8010", name = "127.0.0.6:8010", weight = 9, down = true },"""
}


def test_servers_of_an_upstream(three: list[MadeUp], verdicts: list[Verdicts]) -> None:
    """Names with several addresses count each; backups come after; what is down gets nothing."""
    first, second, backup = three
    servers = [each.name for each in three]
    with Gateway(servers, include=stand_in(APP_UPSTREAM), edit=from_upstream) as gateway:
        await_up(gateway, *three)
        counted = ask_often(gateway)
        assert set(counted) == {first.address, second.address}
        for verdict in verdicts[:2]:
            verdict.change({APP: 13})
        for server in (first, second):
            gateway.await_state(server.name, APP, "down")
        assert set(ask_often(gateway)) == {backup.address}
        assert "127.0.0.6:8010" not in gateway.status()
        assert gateway.get("/o/no_such_app/").status == 502  # the stock answer: no such host


def test_requests_that_come_between_do_not_mix(
    three: list[MadeUp], verdicts: list[Verdicts]
) -> None:
    """A body that is late: between its request's phases many others for another app are served."""
    first, second, _ = three
    verdicts[1].change({"other": 0})
    upstreams = {
        name: f'{{ addr = "{server.name}", name = "x", weight = 1 }}'
        for name, server in ((APP, first), ("other", second))
    }
    servers = [first.name, second.name]
    with Gateway(servers, include=stand_in(upstreams), edit=from_upstream) as gateway:
        await_up(gateway, first)
        gateway.get("/o/other/")
        gateway.await_state(second.name, "other", "up")
        late = [http.client.HTTPConnection("127.0.0.1", GATEWAY_PORT) for _ in range(8)]
        for connection in late:
            connection.putrequest("POST", f"/o/{APP}/")
            connection.putheader("Content-Length", "4")
            connection.endheaders(b"la")
        others = [gateway.get("/o/other/").body for _ in range(40)]
        for connection in late:
            connection.send(b"te")
            with contextlib.closing(connection):
                assert connection.getresponse().read() == first.address.encode()
        assert set(others) == {second.address.encode()}


def test_the_operator_sees_what_the_gateway_believes(
    three: list[MadeUp], verdicts: list[Verdicts]
) -> None:
    first, second, third = three
    verdicts[0].change({APP: 0, "bk_sops": 13})
    second.say = lambda handler: handler.answer(envelope("Docker is gone", 10), 503)
    third.say = _hang_up
    with Gateway([each.name for each in three]) as gateway:
        await_up(gateway, first)
        wait_for(
            lambda: (
                gateway.status()[second.name]["state"] == "down"
                and "reason" in gateway.status()[third.name]
            ),
            "all of it",
        )
        page = gateway.status()
        apps = page[first.name]["apps"]
        assert apps[APP]["state"] == "up" and apps[APP]["code"] == 0
        assert apps["bk_sops"]["state"] == "down" and apps["bk_sops"]["code"] == 13
        assert apps["bk_sops"]["reason"] == "no healthy container"
        assert 0 <= page[first.name]["heard_seconds_ago"] < 60
        assert page[first.name]["watched_by"] in gateway.nginx.workers()
        assert page[second.name]["code"] == 10
        assert page[third.name]["state"] == "unknown"
        assert "heard_seconds_ago" not in page[third.name]
        assert _status_seen_from("127.0.0.7") == 403


def _hang_up(handler: Handler) -> None:
    handler.close_connection = True


def _status_seen_from(address: str) -> int:
    connection = http.client.HTTPConnection(
        "127.0.0.1", GATEWAY_PORT, source_address=(address, 0), timeout=60
    )
    try:
        connection.request("GET", STATUS)
        return connection.getresponse().status
    finally:
        connection.close()
