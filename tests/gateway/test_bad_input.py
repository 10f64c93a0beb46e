"""Services that talk nonsense, names that are none, memory that is full: users never notice."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Callable, Iterator

import pytest

import sandbox.gateway
from sandbox.gateway import GATEWAY_PORT, STOCK_PORT, Gateway
from sandbox.running_service import ask
from sandbox.waiting import wait_for, wait_until
from tests.gateway.asking import APP, ask_often, await_up, from_upstream, stand_in
from tests.gateway.made_up import Handler, MadeUp, Verdicts, envelope

GOOD, BAD = "127.0.0.4", "127.0.0.3"
KEYS_PORT = 8082
# Shows what lies in the shared dictionary, which the module itself never does.
KEYS = f"""
    server {{
        listen 127.0.0.1:{KEYS_PORT};
        location / {{
            content_by_lua_block {{
                ngx.say(table.concat(ngx.shared.container_healthcheck:get_keys(0), "\\n"))
            }}
        }}
    }}"""


def keys() -> set[str]:
    """The keys in the shared dictionary, but for complaints and what is counted."""
    found = ask(KEYS_PORT, "/").body.decode().split()
    return {key for key in found if not key.startswith(("complained:", "count", "stock"))}


def slow(handler: Handler) -> None:
    with contextlib.suppress(OSError):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        for _ in range(100):
            handler.wfile.write(b" ")
            time.sleep(0.1)


def never(handler: Handler) -> None:
    handler.connection.recv(1)  # until the gateway gives up
    handler.close_connection = True


def raw(data: bytes) -> Callable[[Handler], None]:
    return lambda handler: handler.raw(data)


def body(data: bytes, status: int = 200) -> Callable[[Handler], None]:
    return lambda handler: handler.answer(data, status)


# What an APPO server may say while something is wrong there.
NONSENSE: dict[str, Callable[[Handler], None]] = {
    "drips": slow,
    "never answers": never,
    "hangs up": raw(b""),
    "half an answer": raw(b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n" + envelope({})),
    "more than a megabyte": body(b"x" * 3_000_000),
    "endless without a length": raw(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 3_000_000),
    "endless header": raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1_000_000),
    "endless headers": raw(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000),
    "its nginx without the service": body(b"<html>502 Bad Gateway</html>", 502),
    "another JSON": body(b'{"code": 0, "message": "i am something else"}'),
    "a list": body(envelope([1, 2, 3])),
    "codes that are texts": body(envelope({"bk_iam": "up"})),
    "codes that are fractions": body(envelope({"bk_iam": 0.5})),
    "codes below zero": body(envelope({"bk_iam": -1})),
    "names that are none": body(envelope({"bk iam\n": 0})),
    "a 304 nobody asked for": raw(b"HTTP/1.1 304 Not Modified\r\n\r\n"),
    "not HTTP": raw(b"SSH-2.0-OpenSSH_7.4\r\n"),
    "a length that is none": raw(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n{}"),
}
# What servers say that are no APPO servers.
FOREIGN: dict[str, Callable[[Handler], None]] = {
    "another page": body(b"<html><h1>It works!</h1></html>"),
    "not found": body(b"404 page not found", 404),
    "a redirect": body(b"", 302),
    "forbidden": body(b"", 403),
    "another JSON": body(b'{"status": "fine"}'),
    "half a JSON": body(envelope({"bk_iam": 0})[:-9]),
    "a megabyte": body(b"[" + b"1," * 500_000 + b"1]"),
    "a deep JSON": body(b"[" * 5000 + b"]" * 5000),
    # Asked by HTTP/1.0, no server does that.
    "chunks": raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
}


@pytest.fixture
def good() -> Iterator[MadeUp]:
    """A server whose service says that bk_iam is up."""
    with MadeUp(GOOD, Verdicts({"bk_iam": 0})) as server:
        yield server


def test_nonsense_makes_a_server_unknown(good: MadeUp) -> None:
    """All requests go to the server of which something is known; one line says what is wrong."""
    with contextlib.ExitStack() as stack:
        bad = {
            what: stack.enter_context(MadeUp(f"127.0.1.{number}", say))
            for number, (what, say) in enumerate(NONSENSE.items(), 1)
        }
        names = [server.name for server in bad.values()]
        gateway = stack.enter_context(Gateway([*names, good.name], include=KEYS))
        assert gateway.get("/o/bk_iam/").status == 200
        gateway.await_state(good.name, "bk_iam", "up")
        for what, server in bad.items():
            _await_reason(gateway, server)
            assert gateway.state(server.name, "bk_iam") == "unknown", what
        before = keys()
        assert {gateway.get("/o/bk_iam/").body for _ in range(30)} == {GOOD.encode()}
        asked = {what: server.lists for what, server in bad.items()}
        for what, server in bad.items():
            _await_questions(server, asked[what] + 2)
            # The made-up server may learn a moment late that the gateway has given up.
            assert server.most_at_once <= 2, what
            about = [line for line in gateway.changes() if f"{server.name}: " in line]
            assert len(about) == 1 and "unknown: " in about[0], (what, about)
        assert keys() <= before
        assert len(gateway.nginx.log()) < 300 * (len(bad) + 1)


def test_a_server_that_is_not_ours_keeps_its_turn(good: MadeUp) -> None:
    """It never counts as down, is asked now and then only, and the log speaks of it once."""
    with contextlib.ExitStack() as stack:
        foreign = {
            what: stack.enter_context(MadeUp(f"127.0.1.{number}", say))
            for number, (what, say) in enumerate(FOREIGN.items(), 1)
        }
        names = [server.name for server in foreign.values()]
        gateway = stack.enter_context(Gateway([*names, good.name]))
        gateway.get("/o/bk_iam/")
        gateway.await_state(good.name, "bk_iam", "up")
        for server in foreign.values():
            _await_reason(gateway, server)
        everybody = {each.address.encode() for each in [good, *foreign.values()]}
        assert {gateway.get("/o/bk_iam/").body for _ in range(60)} == everybody
        asked = good.lists
        _await_questions(good, asked + 2)
        for what, server in foreign.items():
            assert server.lists == 1, what
            assert gateway.status()[server.name]["foreign"] is True, what
            about = [line for line in gateway.changes() if f"{server.name}: " in line]
            assert len(about) == 1 and "not an APPO server" in about[0], (what, about)


def test_a_server_that_is_not_ours_when_the_others_are_down_or_unknown(good: MadeUp) -> None:
    with (
        MadeUp(BAD, body(b"<html>", 404)) as foreign,
        Gateway([foreign.name, good.name]) as gateway,
    ):
        gateway.get("/o/bk_iam/")
        gateway.await_state(good.name, "bk_iam", "up")
        _await_reason(gateway, foreign)
        said, good.say = good.say, Verdicts({"bk_iam": 13})
        gateway.await_state(good.name, "bk_iam", "down")
        assert {gateway.get("/o/bk_iam/").body for _ in range(20)} == {BAD.encode()}
        good.say = raw(b"")
        gateway.await_state(good.name, "bk_iam", "unknown")
        everybody = {BAD.encode(), GOOD.encode()}
        assert {gateway.get("/o/bk_iam/").body for _ in range(20)} == everybody
        good.say = said
        gateway.await_state(good.name, "bk_iam", "up")
        assert {gateway.get("/o/bk_iam/").body for _ in range(20)} == everybody


def test_a_server_that_was_ours_is_unknown_whatever_answers_there(good: MadeUp) -> None:
    """A BlueKing upgrade has removed the location, say: more is known of the other server."""
    with MadeUp(BAD, Verdicts({"bk_iam": 0})) as bad, Gateway([bad.name, good.name]) as gateway:
        gateway.get("/o/bk_iam/")
        for server in (bad, good):
            gateway.await_state(server.name, "bk_iam", "up")
        bad.say = body(b"<html>", 404)
        gateway.await_state(bad.name, "bk_iam", "unknown")
        assert {gateway.get("/o/bk_iam/").body for _ in range(20)} == {GOOD.encode()}


def _await_reason(gateway: Gateway, server: MadeUp) -> None:
    wait_for(lambda: "reason" in gateway.status()[server.name], f"a reason for {server.name}")


def _await_questions(server: MadeUp, number: int) -> None:
    wait_for(lambda: server.lists >= number, f"question {number} to {server.name}")


@pytest.mark.parametrize("code", [13, 99, 999_999])
def test_any_other_code_is_down(good: MadeUp, code: int) -> None:
    with (
        MadeUp(BAD, Verdicts({"bk_iam": code})) as bad,
        Gateway([bad.name, good.name]) as gateway,
    ):
        gateway.get("/o/bk_iam/")
        gateway.await_state(bad.name, "bk_iam", "down")
        gateway.await_state(good.name, "bk_iam", "up")
        assert {gateway.get("/o/bk_iam/").body for _ in range(10)} == {GOOD.encode()}


def test_a_service_without_a_picture_is_down_for_all_apps(good: MadeUp) -> None:
    fault = body(envelope("cannot connect to Docker: no socket", code=10), 503)
    with MadeUp(BAD, fault) as bad, Gateway([bad.name, good.name]) as gateway:
        gateway.get("/o/bk_iam/")
        gateway.await_state(bad.name, "bk_iam", "down")
        gateway.await_state(good.name, "bk_iam", "up")
        assert {gateway.get("/o/bk_iam/").body for _ in range(10)} == {GOOD.encode()}
        assert gateway.status()[bad.name]["code"] == 10
        about = [line for line in gateway.changes() if bad.name in line]
        assert len(about) == 1 and "no socket" in about[0]


@pytest.mark.parametrize(
    "say",
    [
        body(envelope({"bk_iam": 0})),
        raw(b"HTTP/1.0 200 OK\r\n\r\n" + envelope({"bk_iam": 0})),
        raw(b"HTTP/1.1 200 OK\ncontent-length: 90\n\n" + envelope({"bk_iam": 0}).ljust(90)),
    ],
    ids=["with a length", "until the end", "bare line feeds"],
)
def test_every_way_to_send_an_answer_is_read(say: Callable[[Handler], None]) -> None:
    with MadeUp(BAD, say) as server, Gateway([server.name]) as gateway:
        gateway.get("/o/bk_iam/")
        gateway.await_state(server.name, "bk_iam", "up")


NAMES = [
    "x" * 10_000,
    "%2e%2e",
    "%00",
    "%0d%0aX-Evil:%201",
    "%25%32%65",
    "a%2fb",
    "%ff%fe",
    "..%5c",
    "bk_iam%20",
    "-bk",
    "(.*",
    "${app}",
    "127.0.0.1:22",
    "bk_iam:80",
    "state:127.0.0.3:8010",
    "[::1]",
    "unix:",
]


def test_names_that_are_none(good: MadeUp) -> None:
    """They get a server's answer, whatever that is, and leave nothing behind."""
    with Gateway([good.name], include=KEYS) as gateway:
        gateway.get("/o/bk_iam/")
        gateway.await_state(good.name, "bk_iam", "up")
        before = keys()
        for name in NAMES:
            answer = ask(GATEWAY_PORT, f"/o/{name}/x")
            assert answer.status == ask(STOCK_PORT, f"/o/{name}/x").status, name
        assert keys() == before
        good.status = 502
        for name in NAMES:
            ask(GATEWAY_PORT, f"/o/{name}/x", method="POST")
        assert keys() - before <= {"failed", f"failed:{good.name}/"}
        assert gateway.get("/o/bk_iam/").status == 502
        assert not any("internal error" in line for line in gateway.changes())


def test_many_made_up_names_do_not_grow_anything(good: MadeUp) -> None:
    with Gateway([good.name], include=KEYS) as gateway:
        gateway.get("/o/bk_iam/")
        gateway.await_state(good.name, "bk_iam", "up")
        before = keys()
        good.status = 502
        for number in range(2500):
            assert gateway.get(f"/o/app{number}/").status == 502
        assert keys() - before <= {"failed", f"failed:{good.name}/"}


def _without_bar(text: str) -> str:
    return text.replace("lua_shared_dict container_healthcheck 4m;", "")


def _tiny(text: str) -> str:
    return text.replace("lua_shared_dict container_healthcheck 4m;",
                        "lua_shared_dict container_healthcheck 12k;")  # fmt: skip


def test_a_full_dictionary() -> None:
    """Requests go to servers that work; the log says once that it is too small."""
    many = {f"some_app_with_a_long_name_{number}": 0 for number in range(1900)}
    with (
        MadeUp(BAD, Verdicts({**many, "bk_iam": 13})) as first,
        MadeUp(GOOD, Verdicts({**many, "bk_iam": 0})) as second,
        Gateway([first.name, second.name], include=KEYS, edit=_tiny) as gateway,
    ):
        gateway.get("/o/bk_iam/")
        wait_for(
            lambda: any("dictionary is full" in line for line in gateway.changes()), "a complaint"
        )
        first.status = 502
        for _ in range(50):
            answer = gateway.get("/o/bk_iam/")
            assert (answer.status, answer.body) == (200, GOOD.encode())
        asked = first.lists
        wait_for(lambda: first.lists >= asked + 2, "two more questions")
        complaints = [line for line in gateway.changes() if "full" in line]
        assert 1 <= len(complaints) <= 2, complaints  # one for each worker at most
        for server in (first, second):
            about = [line for line in gateway.changes() if f"{server.name}: unknown" in line]
            assert len(about) <= 1, gateway.changes()


def test_more_apps_than_are_kept(good: MadeUp) -> None:
    many = {f"app{number}": 0 for number in range(5000)}
    with MadeUp(BAD, Verdicts(many)) as server, Gateway([server.name]) as gateway:
        gateway.get("/o/app1/")

        def kept() -> int:
            return len(gateway.status()[server.name]["apps"])

        wait_until(kept, (2000).__eq__, "all that are kept")
        assert gateway.get("/o/app4999/").status == 200


UPSTREAM = f"upstream bk_iam {{ server {GOOD}:8010; }}"


def test_without_the_dictionary_requests_go_the_stock_way(good: MadeUp) -> None:
    with Gateway([good.name], include=UPSTREAM, edit=_without_bar) as gateway:
        for _ in range(5):
            assert gateway.get("/o/bk_iam/").status == 200
        assert 1 <= sum("stock routing" in line for line in gateway.changes()) <= 2
        assert gateway.get("/container-healthcheck-gateway").json["shared_dictionary"] is False


def test_what_a_service_says_after_a_fault_is_heard_at_once(good: MadeUp) -> None:
    """It is not asked for a change from what it said before the fault."""
    known: list[str | None] = []

    def fault(handler: Handler) -> None:
        known.append(handler.headers.get("If-None-Match"))
        handler.answer(envelope("Docker is away", 10), 503)

    with Gateway([good.name]) as gateway:
        gateway.get("/o/bk_iam/")
        gateway.await_state(good.name, "bk_iam", "up")
        good.say = fault
        wait_for(lambda: len(known) >= 3, "three questions")
    assert known[0] is not None
    assert set(known[1:]) == {None}


def test_without_servers_requests_go_the_stock_way(good: MadeUp) -> None:
    with Gateway([good.name], include=UPSTREAM, edit=_no_servers) as gateway:
        assert gateway.get("/o/bk_iam/").body == GOOD.encode()
        assert gateway.get("/o/no_such_app/").status == 502
        assert json.loads(gateway.get("/container-healthcheck-gateway").body)["servers"] == []


def _no_servers(text: str) -> str:
    return text.replace("set $appo_servers", "#set $appo_servers")


def test_addresses_that_are_none_are_left_out(good: MadeUp) -> None:
    wrong = ["nonsense", "1.2.3.4", "host:80", "1.2.3.4:99999", "1.2.3.256:80", ""]
    with Gateway([*wrong, good.name], edit=_no_stock) as gateway:
        for _ in range(5):
            assert gateway.get("/o/bk_iam/").body == GOOD.encode()
        assert sum("not an address" in line for line in gateway.changes()) <= 2


def _no_stock(text: str) -> str:
    return re.sub(r"upstream stock \{.*\}", "upstream stock { server 127.0.0.1; }", text)


def test_a_hundred_upstreams_that_are_no_apps(three: list[MadeUp]) -> None:
    """Their users get their answers, the app's servers stay known, and nothing grows."""
    good, other, _ = three
    other.say = lambda handler: handler.answer(b"a page", 404)
    # An address each; behind every second one is a server, which is no APPO server.
    upstreams = {
        f"SITE_{number}": f'{{ addr = "127.0.3.{number}:8010", name = "x", weight = 1 }}'
        for number in range(1, 101)
    }
    upstreams["SITE_0"] = f'{{ addr = "{other.name}", name = "x", weight = 1 }}'
    upstreams[APP] = f'{{ addr = "{good.name}", name = "x", weight = 1 }}'
    include = stand_in(upstreams) + KEYS
    with Gateway([good.name], include=include, edit=from_upstream) as gateway:
        for _ in range(3):
            for name in upstreams:
                status = gateway.get(f"/o/{name}/").status
                assert status == (200 if name in (APP, "SITE_0") else 502), name
            await_up(gateway, good)
        assert len(gateway.status()) <= len(upstreams)
        # Of each: a slot, that it is wanted, record, number, lease, failure, what was logged.
        assert len(keys()) <= 7 * len(upstreams) + 10
        assert not any("internal error" in line for line in gateway.changes())


CLOCK_PORT = 8090
# Another clock for the Lua: as much off as `/?N` says.
CLOCK = f"""
    lua_shared_dict clock 12k;
    init_by_lua_block {{
        local real, clock = ngx.now, ngx.shared.clock
        ngx.now = function() return real() + (clock:get("off") or 0) end
    }}
    server {{
        listen 127.0.0.1:{CLOCK_PORT};
        location / {{
            content_by_lua_block {{ ngx.shared.clock:set("off", tonumber(ngx.var.args)) }}
        }}
    }}"""


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("seconds", [-3600, 3600])
def test_a_clock_that_is_set(
    three: list[MadeUp],
    verdicts: list[Verdicts],
    seconds: int,
    workers: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing fails, and what changes is heard as before."""
    monkeypatch.setattr(sandbox.gateway, "WORKERS", workers)
    first, second, _ = three
    with Gateway([first.name, second.name], include=CLOCK) as gateway:
        await_up(gateway, first, second)
        first.status = 502
        assert set(ask_often(gateway, 10)) == {second.address}  # the first one has just failed
        first.status = 200
        ask(CLOCK_PORT, f"/?{seconds}")
        wait_for(lambda: len(ask_often(gateway, 4)) == 2, "the failure to be forgotten")
        for server in (first, second):
            asked = server.lists
            _await_questions(server, asked + 2)
        assert {gateway.state(each.name, APP) for each in (first, second)} == {"up"}
        verdicts[0].change({APP: 13})
        gateway.await_state(first.name, APP, "down")
        assert set(ask_often(gateway)) == {second.address}
        verdicts[0].change({APP: 0})
        await_up(gateway, first)
        assert not any("internal error" in line for line in gateway.changes())


@pytest.mark.slow
def test_ten_reloads(three: list[MadeUp]) -> None:
    """Nothing fails, nothing grows, and each server is still asked by one worker."""
    with Gateway([each.name for each in three], include=KEYS) as gateway:
        await_up(gateway, *three)
        before = keys()
        for _ in range(10):
            gateway.reload()
            assert set(ask_often(gateway, 9)) <= {each.address for each in three}
        for server in three:
            _await_questions(server, server.lists + 3)
            assert gateway.state(server.name, APP) == "up"
            assert server.most_at_once <= 2  # one more that an old worker had given up
        assert keys() <= before | {f"risen:{each.name}/{APP}" for each in three}
        assert len([line for line in gateway.changes() if "unknown" in line]) == len(three)
