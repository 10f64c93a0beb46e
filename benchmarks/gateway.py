"""The gateway: stock locations beside ours, through one nginx worker; and what changes cost.

`python -m benchmarks.gateway` prints the tables. The APPO servers are one nginx with many
addresses, which answers for apps and services by itself, so that the gateway is what is measured.
The locations are loaded in turn, in many short rounds. `floor` is the Lua phases of our location
that think nothing: what no Lua can fall below.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import re
import threading
import time
from collections.abc import Iterator, Sequence

import sandbox.gateway
from benchmarks.load import Load, in_background, in_turn, middle, ratio, wrk
from sandbox.gateway import APPO_PORT, GATEWAY_PORT, PACKAGING, Gateway, stock_location
from sandbox.network import Network
from sandbox.nginx import Nginx
from sandbox.running_service import ask
from sandbox.waiting import wait_for
from tests.gateway.made_up import LIST_PATH, MadeUp, Verdicts, envelope

ROUNDS = 9
SECONDS = 2
IDLE_SECONDS = 20
SERVERS = (2, 8, 32)
CONNECTIONS = (1, 8, 64)
APP = "app0_x"
CHANGING = [f"changing{number}_x" for number in range(10)]
CHANGES_A_SECOND = 10
STOCK_PORT, KEEPALIVE_PORT, FLOOR_PORT, UPSTREAM_PORT = 8082, 8083, 8084, 8085
PORTS = {
    "stock": STOCK_PORT,
    "stock + keepalive": KEEPALIVE_PORT,
    "floor": FLOOR_PORT,
    "our location": GATEWAY_PORT,
    "our upstream": UPSTREAM_PORT,
}
BASE = "stock + keepalive"
_OURS = (PACKAGING / "openresty" / "location.conf").read_text()
_LINE = (PACKAGING / "openresty" / "upstream.conf").read_text()
_KEEPING = r"(?m)^.*(proxy_http_version|Connection|Upgrade).*\n"


def _addresses(servers: int) -> list[str]:
    return [f"127.0.{4 + number // 200}.{number % 200 + 1}" for number in range(servers)]


def _appo(services: Sequence[str] = ()) -> str:
    """The nginx of all APPO servers; `services` answer for the first ones, itself for the rest."""
    own = "alias {folder}/apps.json; access_log {folder}/access.log;"

    def server(address: str, answer: str) -> str:
        return f"""
    server {{
        listen {address}:{APPO_PORT};
        location /o/ {{ return 200 "{"x" * 1000}"; }}
        location {LIST_PATH} {{ {answer} }}
    }}"""

    answers = [*(f"proxy_pass http://{each};" for each in services), *[own] * max(SERVERS)]
    pairs = zip(_addresses(max(SERVERS)), answers, strict=False)
    return "keepalive_requests 1000000;" + "".join(server(*pair) for pair in pairs)


def _write_apps(appo: Nginx, apps: Sequence[str]) -> None:
    """What its services list: all of them up."""
    (appo.folder / "apps.json").write_bytes(envelope(dict.fromkeys(apps, 0)))


def _locations(addresses: Sequence[str]) -> str:
    """The locations to compare with, with the same headers as ours."""
    peers = "".join(
        f"server {each}:{APPO_PORT} max_fails=1 fail_timeout=30s; " for each in addresses
    )

    def server(port: int, location: str) -> str:
        return f"server {{ listen 127.0.0.1:{port}; {location} }}\n"

    def passes(location: str, upstream: str) -> str:
        return re.sub(r'set \$app "\$1";', f'set $app "{upstream}";', location)

    without_lua = stock_location(_OURS)
    thoughtless = 'rewrite_by_lua_block { ngx.var.target_up = "floor" }'
    floor = re.sub(r"rewrite_by_lua_block .*", thoughtless, _OURS)
    given = " ".join(f"{each}:{APPO_PORT}" for each in addresses)
    names = ", ".join(f'"{each}"' for each in addresses)
    return f"""
    upstream plain {{ {peers} }}
    upstream keeping {{ {peers} keepalive 64; }}
    init_by_lua_block {{
        local balancer, turn = require("ngx.balancer"), 0
        local peers = {{ {names} }}
        function next_peer()
            turn = turn % #peers + 1
            balancer.set_current_peer(peers[turn], {APPO_PORT})
        end
    }}
    upstream floor {{
        server 0.0.0.1;
        balancer_by_lua_block {{ next_peer() }}
        keepalive 64;
    }}
    {server(STOCK_PORT, passes(re.sub(_KEEPING, "", without_lua), "plain"))}
    {server(KEEPALIVE_PORT, passes(without_lua, "keeping"))}
    {server(FLOOR_PORT, "log_by_lua_block { } " + floor)}
    upstream {APP} {{ {peers} {_LINE} keepalive 64; }}
    {server(UPSTREAM_PORT, f'set $appo_servers "{given}"; {without_lua}')}"""


def _url(port: int) -> str:
    return f"http://127.0.0.1:{port}/o/{APP}/"


def _load(gateway: Gateway, port: int, connections: int) -> Load:
    pids = gateway.nginx.workers()
    return wrk(_url(port), pids, connections=connections, seconds=SECONDS)


@contextlib.contextmanager
def _running(servers: int) -> Iterator[Gateway]:
    addresses = _addresses(servers)
    names = [f"{each}:{APPO_PORT}" for each in addresses]
    with Gateway(names, include=_locations(addresses)) as gateway:
        gateway.get(f"/o/{APP}/")
        for name in names:
            gateway.await_state(name, APP, "up")
        yield gateway


def _print_speeds(rounds: int) -> None:
    print(f"Through the gateway with one nginx worker, median of {rounds} rounds of {SECONDS} s. A")
    print(f"ratio compares with `{BASE}`, more is better; it is the median of the rounds' own:\n")
    columns = "servers | connections | location | requests/s | ratio"
    print(f"| {columns} | processor time, µs | ratio | p99 ms | ratio |")
    print("|---|---|---|---|---|---|---|---|---|")
    for servers in SERVERS:
        with _running(servers) as gateway:
            for connections in CONNECTIONS:
                loads = {
                    name: functools.partial(_load, gateway, port, connections)
                    for name, port in PORTS.items()
                }
                measured = in_turn(loads, rounds)
                for name, each in measured.items():
                    print(
                        f"| {servers} | {connections} | {name} | {_row(each, measured[BASE])} |",
                        flush=True,
                    )


def _row(rounds: Sequence[Load], base: Sequence[Load]) -> str:
    load, of = middle(rounds), ratio(rounds, base)
    speed = f"{load.rate:.0f} | {of.rate:.2f} | {load.cpu:.1f} | {1 / of.cpu:.2f}"
    return f"{speed} | {load.p99:.2f} | {1 / of.p99:.2f}"


def _change(services: Sequence[Verdicts], over: threading.Event) -> None:
    """Changes all of `CHANGING` on all services, so many times a second, until it is over."""
    for number in itertools.count():
        if over.wait(1 / CHANGES_A_SECOND / len(CHANGING)):
            return
        turn, app = divmod(number, len(CHANGING))
        codes = {APP: 0} | {
            each: 13 if (turn + (index <= app)) % 2 else 0 for index, each in enumerate(CHANGING)
        }
        for service in services:
            service.change(codes)


def _print_changes(rounds: int, services: Sequence[Verdicts]) -> None:
    print(
        f"\nRequests for an app that stays up, 2 servers, 8 connections, {rounds} rounds, while ten"
    )
    print(
        f"others change state {CHANGES_A_SECOND} times a second each, and while nothing changes:\n"
    )
    print("| | requests/s | µs of processor | p99 ms |")
    print("|---|---|---|---|")
    with _running(len(services)) as gateway:
        quiet, changing = [], []
        for _ in range(rounds):
            quiet.append(_load(gateway, GATEWAY_PORT, 8))
            with in_background(lambda over: _change(services, over)):
                changing.append(_load(gateway, GATEWAY_PORT, 8))
    for name, each in (("nothing changes", quiet), ("ten apps change", changing)):
        load = middle(each)
        print(f"| {name} | {load.rate:.0f} | {load.cpu:.1f} | {load.p99:.2f} |")
    of = ratio(changing, quiet)
    print(f"| ratio | {of.rate:.2f} | | {of.p99:.2f} |", flush=True)


def _view(over: threading.Event) -> None:
    """Reads what the page reads, the JSON and the metrics, in turn, until it is over."""
    for query in itertools.cycle(("fleet", "json", "prometheus")):
        if over.is_set():
            return
        ask(GATEWAY_PORT, f"/container-healthcheck-gateway?format={query}")


def _print_viewing(rounds: int, appo: Nginx) -> None:
    print(
        f"\nRequests for one app, {rounds} rounds, while page, JSON and metrics are read without a"
    )
    print("pause, and while nobody reads them:\n")
    print("| apps | servers | | requests/s | p99 ms |")
    print("|---|---|---|---|---|")
    for apps, servers in ((300, 8), (1000, 16)):
        _write_apps(appo, [APP, *(f"another_app_{number}" for number in range(apps - 1))])
        with _running(servers) as gateway:
            quiet, viewed = [], []
            for _ in range(rounds):
                quiet.append(_load(gateway, GATEWAY_PORT, 8))
                with in_background(_view):
                    viewed.append(_load(gateway, GATEWAY_PORT, 8))
        for name, each in (("nobody reads", quiet), ("read", viewed)):
            load = middle(each)
            print(f"| {apps} | {servers} | {name} | {load.rate:.0f} | {load.p99:.2f} |")
        of = ratio(viewed, quiet)
        print(f"| {apps} | {servers} | ratio | {of.rate:.2f} | {of.p99:.2f} |", flush=True)


def _print_cost(appo: Nginx) -> None:
    with _running(2) as gateway:
        gateway.get(f"/o/{APP}/")
        before, began = appo.requests_for(LIST_PATH), time.monotonic()
        wait_for(lambda: time.monotonic() > began + IDLE_SECONDS, "the time to pass")
        asked = (appo.requests_for(LIST_PATH) - before) / (time.monotonic() - began)
    print(f"\nWatching, when nothing changes: {asked / 2:.2f} requests/s and APPO server.")


def main(rounds: int = ROUNDS) -> None:
    """Measures and prints the tables."""
    sandbox.gateway.WORKERS = 1
    verdicts = [Verdicts(dict.fromkeys([APP, *CHANGING], 0)) for _ in range(2)]
    with Network() as network, network.entered(), contextlib.ExitStack() as stack:
        appo = stack.enter_context(Nginx(_appo()))
        _write_apps(appo, [APP, *CHANGING])
        _print_speeds(rounds)
        _print_cost(appo)
        _print_viewing(rounds, appo)
        _write_apps(appo, [APP, *CHANGING])
        services = [
            stack.enter_context(MadeUp(f"127.0.9.{number}", say))
            for number, say in enumerate(verdicts, 1)
        ]
        appo.write(_appo([each.name for each in services]))
        appo.reload()
        _print_changes(rounds, verdicts)


if __name__ == "__main__":
    main()
