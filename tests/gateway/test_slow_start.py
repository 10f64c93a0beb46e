"""A server on which an app has come back gets its share in steps, where the site asks for it."""

from __future__ import annotations

from collections.abc import Callable

from sandbox.gateway import Gateway
from sandbox.running_service import ask
from sandbox.waiting import wait_for
from tests.gateway.asking import APP, ask_often, await_up
from tests.gateway.made_up import MadeUp, Verdicts, envelope

LONG = 3000  # seconds: the first step lasts for the whole test


def _slow_start(seconds: int) -> Callable[[str], str]:
    line = f"set $container_healthcheck_slow_start {seconds}; set $appo_servers"
    return lambda text: text.replace("set $appo_servers", line)


def _restart(gateway: Gateway, servers: list[MadeUp], verdicts: list[Verdicts]) -> None:
    """The app goes and comes back on these servers, all at once."""
    for verdict in verdicts:
        verdict.change({APP: 13})
    for server in servers:
        gateway.await_state(server.name, APP, "down")
    for verdict in verdicts:
        verdict.change({APP: 0})
    for server in servers:
        gateway.await_state(server.name, APP, "up")


def test_a_tenth_at_first(three: list[MadeUp], verdicts: list[Verdicts]) -> None:
    """All weights are 1: of 21 requests the server that has come back gets one."""
    first, second, third = three
    with Gateway([each.name for each in three], edit=_slow_start(LONG)) as gateway:
        await_up(gateway, *three)
        counted = ask_often(gateway, 63)
        assert all(counted[each.address] >= 15 for each in three), counted  # none is new
        _restart(gateway, [first], verdicts[:1])
        counted = ask_often(gateway, 210)
        assert 8 <= counted[first.address] <= 12, counted
        assert abs(counted[second.address] - counted[third.address]) <= 4, counted


def test_the_weight_counts_too(three: list[MadeUp], verdicts: list[Verdicts]) -> None:
    first, second, _ = three
    with Gateway([f"{first.name}*5", second.name], edit=_slow_start(LONG)) as gateway:
        await_up(gateway, first, second)
        _restart(gateway, [first], verdicts[:1])
        counted = ask_often(gateway, 60)  # 5 of 15
        assert 16 <= counted[first.address] <= 24, counted


def test_the_whole_in_the_end(three: list[MadeUp], verdicts: list[Verdicts]) -> None:
    first, second, _ = three
    with Gateway([first.name, second.name], edit=_slow_start(2)) as gateway:
        await_up(gateway, first, second)
        _restart(gateway, [first], verdicts[:1])
        wait_for(lambda: ask_often(gateway, 20)[first.address] >= 9, "its whole share")


def test_never_when_all_are_new(three: list[MadeUp], verdicts: list[Verdicts]) -> None:
    """All of BlueKing's servers are redeployed at nearly the same time."""
    with Gateway([each.name for each in three], edit=_slow_start(LONG)) as gateway:
        await_up(gateway, *three)
        _restart(gateway, three, verdicts)
        counted = ask_often(gateway, 60)
        assert all(abs(counted[each.address] - 20) <= 4 for each in three), counted


def test_never_after_a_reload(three: list[MadeUp], verdicts: list[Verdicts]) -> None:
    with Gateway([each.name for each in three], edit=_slow_start(LONG)) as gateway:
        await_up(gateway, *three)
        gateway.reload()
        asked = [each.lists for each in three]
        await_up(gateway, *three)
        wait_for(
            lambda: all(each.lists > had for each, had in zip(three, asked, strict=True)),
            "the new watchers",
        )
        counted = ask_often(gateway, 60)
        assert all(abs(counted[each.address] - 20) <= 4 for each in three), counted


def test_not_unless_asked_for(three: list[MadeUp], verdicts: list[Verdicts]) -> None:
    first, second, _ = three
    with Gateway([first.name, second.name]) as gateway:
        await_up(gateway, first, second)
        _restart(gateway, [first], verdicts[:1])
        counted = ask_often(gateway, 40)
        assert abs(counted[first.address] - 20) <= 4, counted


def test_a_server_that_was_silent_starts_slowly(three: list[MadeUp]) -> None:
    """Nobody knows what its apps did meanwhile."""
    first, second, _ = three
    with Gateway([first.name, second.name], edit=_slow_start(LONG)) as gateway:
        await_up(gateway, first, second)
        said = first.say
        first.say = lambda handler: handler.raw(b"")
        gateway.await_state(first.name, APP, "unknown")
        first.say = said
        await_up(gateway, first)
        counted = ask_often(gateway, 44)
        assert 2 <= counted[first.address] <= 7, counted


def test_a_server_whose_docker_was_away_starts_slowly(three: list[MadeUp]) -> None:
    first, second, _ = three
    with Gateway([first.name, second.name], edit=_slow_start(LONG)) as gateway:
        await_up(gateway, first, second)
        said = first.say
        first.say = lambda handler: handler.answer(envelope("Docker is away", 10), 503)
        gateway.await_state(first.name, APP, "down")
        first.say = said
        await_up(gateway, first)
        counted = ask_often(gateway, 44)
        assert 2 <= counted[first.address] <= 7, counted


STEPS = """
    server {
        listen 127.0.0.1:8090;
        location / {
            content_by_lua_block {
                local share = require("container_healthcheck.choice").share
                for _, age in ipairs({ 0, 0.9, 1.1, 5.5, 9.5, 10, 99, -5 }) do
                    ngx.say(share(ngx.now() - age, 10))
                end
                ngx.say(share(nil, 10), " ", share(ngx.now(), 0))
            }
        }
    }"""


def test_the_steps(three: list[MadeUp]) -> None:
    with Gateway([three[0].name], include=STEPS) as gateway:
        await_up(gateway, three[0])
        shares = [int(each) for each in ask(8090, "/").body.split()]
        assert shares == [1, 1, 2, 6, 10, 10, 10, 10, 10, 10]
