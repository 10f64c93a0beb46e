"""The gateway: the stock location beside ours, through the same nginx; and what watching costs.

`python -m benchmarks.gateway` prints the tables. Two APPO servers with 50 real containers each and
the service; the location /o/ of the APPOs' nginx answers by itself, so that the gateway is what is
measured. The locations are loaded in turn, in many short rounds.
"""

from __future__ import annotations

import contextlib
import time

from benchmarks.load import in_turn, middle, ratio
from sandbox.gateway import (
    APPO_PORT,
    GATEWAY_PORT,
    PACKAGING,
    SERVICE_PORT,
    STOCK_PORT,
    Gateway,
)
from sandbox.network import Network
from sandbox.nginx import Nginx
from sandbox.private_engine import PrivateEngine
from sandbox.running_service import RunningService
from sandbox.waiting import wait_for

ROUNDS = 21
CONTAINERS = 50
SECONDS = 2
IDLE_SECONDS = 20
APP = "app0_x"
ADDRESSES = ("127.0.0.1", "127.0.0.2")
KEEPALIVE_PORT = 8083
# What ours would be compared with if the stock location kept connections, too: the cost of the Lua.
KEEPALIVE = f"""
    upstream stock_keepalive {{
        {"".join(f"server {each}:{APPO_PORT} max_fails=1 fail_timeout=30s; " for each in ADDRESSES)}
        keepalive 64;
    }}
    server {{
        listen 127.0.0.1:{KEEPALIVE_PORT};
        location ~ ^/o/([^/]+) {{
            set $app "stock_keepalive";
            proxy_pass http://$app;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
        }}
    }}"""


def _appo(address: str, folder: str) -> str:
    location = (PACKAGING / "nginx" / "appo-location.conf").read_text()
    location = location.replace("127.0.0.1:4246", f"{address}:{SERVICE_PORT}")
    location = location.replace("access_log off", f"access_log {folder}/{address}.log")
    return f"""
    server {{
        listen {address}:{APPO_PORT};
        location /o/ {{ return 200 "{"x" * 1000}"; }}
        {location}
    }}"""


def main(rounds: int = ROUNDS) -> None:
    """Measures and prints the tables."""
    with Network() as network, network.entered(), contextlib.ExitStack() as stack:
        appo_nginx = Nginx("")
        folder = str(appo_nginx.folder)
        appo_nginx.write("".join(_appo(address, folder) for address in ADDRESSES))
        stack.enter_context(appo_nginx)
        for address in ADDRESSES:
            engine = stack.enter_context(PrivateEngine(own_network=False))
            for number in range(CONTAINERS):
                engine.run(f"app{number}_x-1700000000")
            stack.enter_context(
                RunningService(
                    engine.url,
                    bind=f"{address}:{SERVICE_PORT}",
                    probe_url=f"http://{address}:{APPO_PORT}/o/{{app_code}}/",
                )
            )
        gateway = stack.enter_context(
            Gateway([f"{each}:{APPO_PORT}" for each in ADDRESSES], include=KEEPALIVE)
        )
        gateway.get(f"/o/{APP}/")
        for address in ADDRESSES:
            gateway.await_state(f"{address}:{APPO_PORT}", APP, "up")
        _print_speeds(rounds)
        _print_cost(appo_nginx)


def _print_speeds(rounds: int) -> None:
    ports = {"stock": STOCK_PORT, "stock + keepalive": KEEPALIVE_PORT, "ours": GATEWAY_PORT}
    urls = {name: f"http://127.0.0.1:{port}/o/{APP}/" for name, port in ports.items()}
    print(f"Through the gateway, median of {rounds} rounds of {SECONDS} s, {CONTAINERS} containers")
    print("on each of two APPO servers; a ratio is the median of the rounds' own ratios:\n")
    print("| connections | location | requests/s | p50 ms | p99 ms |")
    print("|---|---|---|---|---|")
    for connections in (1, 8):
        measured = in_turn(urls, rounds, connections=connections, seconds=SECONDS)
        for name, loads in measured.items():
            each = middle(loads)
            print(f"| {connections} | {name} | {each.rate:.0f} | {each.p50:.2f} | {each.p99:.2f} |")
        for name in ("stock", "stock + keepalive"):
            of = ratio(measured["ours"], measured[name])
            print(
                f"| {connections} | ours / {name} | {of.rate:.1%} | {of.p50:.1%} | {of.p99:.1%} |",
                flush=True,
            )


def _print_cost(appo_nginx: Nginx) -> None:
    def asked(address: str) -> int:
        log = appo_nginx.folder / f"{address}.log"
        return log.read_text().count("/container-healthcheck/apps/health ")

    before, began = {each: asked(each) for each in ADDRESSES}, time.monotonic()
    wait_for(lambda: time.monotonic() > began + IDLE_SECONDS, "the time to pass")
    seconds = time.monotonic() - began
    print("\nWatching, when nothing changes:\n")
    print("| APPO server | requests/s |")
    print("|---|---|")
    for address in ADDRESSES:
        print(f"| {address} | {(asked(address) - before[address]) / seconds:.2f} |")


if __name__ == "__main__":
    main()
