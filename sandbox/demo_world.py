"""What the demo shows: two APPO servers and a gateway, in namespaces made for it.

`python -m sandbox.demo_world FD=HOST:PORT …` starts it, prints one line of JSON (see `World`),
and goes on until it is killed; connections to the listening sockets FD are forwarded there.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shlex
import socket
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from sandbox.forwarding import Forwarder, forward
from sandbox.gateway import AppoServer, Gateway, missing
from sandbox.private_engine import SLEEP, SandboxError
from sandbox.running_service import SOURCE

ADDRESSES = ("127.0.0.1", "127.0.0.2")
APPS = ("bk_iam", "bk_sops")
DEPLOYED = 1709878117
# The image has no Python: the app runs in the host's files, which it sees at /host.
_BUILDER = """#!/bin/sh
trap 'exit 0' TERM
busybox chroot /host {app} &
while :; do sleep 1 & wait $!; done
"""


@dataclass(frozen=True)
class Server:
    """Where the parts of an APPO server can be reached from outside."""

    address: str
    docker_socket: str
    dockerd_log: str
    state_dir: str
    service_log: str


@dataclass(frozen=True)
class World:
    """All of it. `gateway_log` is None where there is no gateway, and `missing` says why."""

    servers: list[Server]
    gateway_log: str | None
    missing: str | None

    @staticmethod
    def from_json(text: bytes) -> World:
        """What the line of JSON says."""
        values: dict[str, Any] = json.loads(text)
        return World(**{**values, "servers": [Server(**each) for each in values["servers"]]})


def main(listeners: Sequence[str]) -> int:
    """Runs it, and returns the exit code where it cannot."""
    try:
        with contextlib.ExitStack() as stack:
            # The janitor, who kills all of it at once, is quicker.
            world = _build(stack)
            kept = stack.pop_all()
    except (SandboxError, AssertionError, OSError) as error:
        print(f"The servers of the demo cannot be started: {error}", file=sys.stderr)
        return 1
    print(json.dumps(asdict(world)), flush=True)
    asyncio.run(forward([_forwarder(each) for each in listeners]))
    kept.close()
    return 0


def _forwarder(text: str) -> Forwarder:
    number, _, address = text.partition("=")
    host, _, port = address.partition(":")
    return Forwarder(socket.socket(fileno=int(number)), host, int(port))


def _build(stack: contextlib.ExitStack) -> World:
    with ThreadPoolExecutor() as pool:
        servers = list(pool.map(_server, ADDRESSES))
    for each in servers:
        stack.push(each)
    log, absent = None, missing()
    if not absent:
        gateway = stack.enter_context(Gateway([each.name for each in servers]))
        for app_code in APPS:
            gateway.get(f"/o/{app_code}/")
            for each in servers:
                gateway.await_state(each.name, app_code, "up")
        log = str(gateway.nginx.error_log)
    return World([_seen(each) for each in servers], log, absent)


def _server(address: str) -> AppoServer:
    server = AppoServer(address).__enter__()
    for app_code in APPS:
        _deploy(server, app_code, f"{app_code}-{DEPLOYED}")
    for app_code in APPS:
        server.await_app(app_code)
    return server


def _deploy(server: AppoServer, app_code: str, name: str) -> None:
    """Starts a container as paasagent does; whenever it is started again, the app serves again."""
    folder = server.apps / app_code
    folder.mkdir()
    program = f"{SOURCE}/sandbox/sample_app.py"
    app = shlex.join([sys.executable, program, str(folder), f"{server.address}-{name}"])
    builder = server.apps / f"{app_code}.builder"
    builder.write_text(_BUILDER.format(app=app))
    server.engine.run(
        name,
        SLEEP,
        volumes={
            "/": {"bind": "/host", "mode": "ro"},
            str(server.apps): {"bind": f"/host{server.apps}", "mode": "rw"},
            str(builder): {"bind": "/build/builder", "mode": "ro"},
        },
    )


def _seen(server: AppoServer) -> Server:
    return Server(
        server.address,
        str(server.engine.socket),
        str(server.engine.log),
        server.service.folder.name,
        str(server.service.log),
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
