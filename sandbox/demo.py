"""The demo: two APPO servers behind a gateway, and what a user notices when a container dies.

All of it runs in namespaces of its own (`demo_world`), reached at this machine's loopback, and a
`janitor` ends it with this process. It stays up until Ctrl-C.
"""

from __future__ import annotations

import contextlib
import errno
import json
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NoReturn

from sandbox.demo_world import ADDRESSES, APPS, DEPLOYED, World
from sandbox.gateway import APPO_PORT, GATEWAY_PORT, SERVICE_PORT, Result, traffic
from sandbox.private_engine import dockerd_pid, missing
from sandbox.running_service import PREFIX, SOURCE, ask
from sandbox.waiting import wait_for, wait_until

APP = APPS[0]
CONTAINER = f"{APP}-{DEPLOYED}"
_STATUS = "/container-healthcheck-gateway"
_PLACES = (
    *((host, port) for port in (SERVICE_PORT, APPO_PORT) for host in ADDRESSES),
    (ADDRESSES[0], GATEWAY_PORT),
)
Place = tuple[str, int]


class DemoError(Exception):
    """The demo cannot go on; the text says why, if nobody has said it yet."""


def main() -> int:
    """Runs the demo and returns the exit code."""
    # SIGINT as well: a job that a script puts into the background is started with it ignored.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    began = time.monotonic()
    try:
        problem = missing()
        if problem:
            raise DemoError(f"The demo cannot run here: {problem}.")
        with _listening() as listeners, _running(listeners) as world:
            demo = Demo(world, {place: each.getsockname()[1] for place, each in listeners.items()})
            for each in listeners.values():
                each.close()
            demo.show()
            demo.say(f"All of it took {time.monotonic() - began:.0f} s. It stays up until Ctrl-C.")
            demo.suggest()
            signal.pause()
    except DemoError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nEverything is stopped and removed.")
    return 0


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


@contextlib.contextmanager
def _listening() -> Iterator[dict[Place, socket.socket]]:
    """A listening socket here for each place in the demo's world."""
    with contextlib.ExitStack() as stack:
        yield {place: stack.enter_context(_listen(*place)) for place in _PLACES}


def _listen(host: str, wanted: int) -> socket.socket:
    """On the port, or, when that is taken, on the first free one after it."""
    for port in range(wanted, wanted + 1000):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(128)
        except OSError as error:
            listener.close()
            if error.errno == errno.EADDRINUSE:
                continue
            raise DemoError(f"The demo cannot listen on {host}:{port}: {error}") from error
        if port != wanted:
            print(f"{host}:{wanted} is taken by another program: the demo takes {host}:{port}")
        return listener
    raise DemoError(f"No port of {host} from {wanted} on is free: end what listens there.")


@contextlib.contextmanager
def _running(listeners: Mapping[Place, socket.socket]) -> Iterator[World]:
    """The world, and its end: the janitor's input is closed."""
    print("==> Starting two APPO servers and a gateway, in namespaces of their own", flush=True)
    forwarded = [f"{each.fileno()}={host}:{port}" for (host, port), each in listeners.items()]
    janitor = subprocess.Popen(
        [*_python("sandbox.janitor"), *_python("sandbox.demo_world"), *forwarded],
        cwd=SOURCE,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=[each.fileno() for each in listeners.values()],
        start_new_session=True,
    )
    assert janitor.stdin is not None
    assert janitor.stdout is not None
    try:
        line = janitor.stdout.readline()
        if not line:
            raise DemoError("The demo ends here, and has left nothing behind.")
        yield World.from_json(line)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        janitor.stdin.close()
        janitor.wait()
        janitor.stdout.close()


def _python(module: str) -> list[str]:
    return [sys.executable, "-m", module]


class Demo:
    """Shows a world; `ports` are those of this machine."""

    def __init__(self, world: World, ports: Mapping[Place, int]) -> None:
        self._world = world
        self._ports = ports
        self._first = world.servers[0]
        self._service = self._url(ADDRESSES[0], SERVICE_PORT, "/container-healthcheck")
        self._gateway = self._url(ADDRESSES[0], GATEWAY_PORT)

    def _url(self, host: str, port: int, path: str = "") -> str:
        return f"http://{host}:{self._ports[host, port]}{path}"

    # --- the show

    def show(self) -> None:
        """The checks, and the death of a container."""
        for each in self._world.servers:
            print(
                f"    {each.address}  Docker engine, nginx :{APPO_PORT}, service :{SERVICE_PORT},"
            )
            print(f"               apps {' and '.join(APPS)}, each in a container")
        self.say("The service on the first APPO server answers what the gateway wants to know")
        for path in ("/health", f"/apps/health/{APP}", "/apps/health"):
            _run("curl", "-s", f"{self._service}{path}")
        if self._world.missing:
            self.say(f"There is no gateway here: {self._world.missing}")
            self._kill_unseen()
        else:
            self._kill_under_traffic()

    def _kill_unseen(self) -> None:
        self.say(f"{CONTAINER} is killed on {self._first.address}")
        print(f"    The service knew {_milliseconds(self._kill_until(self._is_refused))}.")
        _run("curl", "-s", f"{self._service}/apps/health/{APP}")

    def _is_refused(self) -> bool:
        port = self._ports[ADDRESSES[0], SERVICE_PORT]
        return ask(port, f"/container-healthcheck/apps/health/{APP}").status == 503

    def _kill_under_traffic(self) -> None:
        url = f"{self._gateway}/o/{APP}/"
        _run("curl", "-s", url)
        self.say(f"Users ask for {url}, 50 GETs and 50 POSTs a second; then {CONTAINER} is killed")
        with traffic(url) as users:
            users.goes_on(100)
            began = time.monotonic()
            known = self._kill_until(self._is_down)
            users.goes_on(100)
            results = users.finish()
        failed = self._count(results, "GET")
        lost = self._count(results, "POST")
        if lost:
            print("    (Those were under way in that moment; nothing may send a POST twice.)")
        print(f"    The gateway knew {_milliseconds(known)}.")
        for each in self._world.servers:
            before, after = (
                sum(f"{each.address}-" in result.said for result in results if when(result.start))
                for when in (began.__gt__, (began + known).__lt__)
            )
            print(f"    {each.address} answered {before} before the kill,", end=" ")
            print(f"and {after} once the gateway knew.")
        self.say("What the gateway considers up or down now, and what it wrote into its log")
        _run("curl", "-s", f"{self._gateway}{_STATUS}")
        assert self._world.gateway_log is not None
        _print_lines(self._world.gateway_log, "container-healthcheck: ")
        self.say(f"What the service on {self._first.address} logged")
        _print_lines(self._first.service_log, f"{APP}: 0 -> ")
        if failed:
            raise DemoError("A GET failed: that must not be.")

    @staticmethod
    def _count(results: list[Result], method: str) -> int:
        """Says how many requests there were, and returns how many failed."""
        theirs = [each for each in results if each.method == method]
        failed = sum(each.failed for each in theirs)
        print(f"    {method}s: {len(theirs)}, failed: {failed}.")
        return failed

    def _kill_until(self, seen: Callable[[], bool]) -> float:
        """Kills the container; how many seconds after the command's beginning that is seen."""
        began = time.monotonic()
        _run(*self._docker("kill", CONTAINER), quiet=True)
        wait_for(seen, "the death to be noticed")
        return time.monotonic() - began

    def _is_down(self) -> bool:
        port = self._ports[ADDRESSES[0], GATEWAY_PORT]
        status = json.loads(ask(port, _STATUS).body)
        name = f"{self._first.address}:{APPO_PORT}"
        server = next(each for each in status["servers"] if each["server"] == name)
        return bool(server["apps"][APP]["state"] == "down")

    def say(self, text: str) -> None:
        """A new step."""
        print(f"\n==> {text}", flush=True)

    # --- what to try

    def suggest(self) -> None:
        """The pages to open, and the commands to try."""
        print("\nOpen in a browser, or by curl:")
        if not self._world.missing:
            print(f"  {self._gateway}/o/{APP}/    an app, as its users reach it")
            print(f"  {self._gateway}{_STATUS}    what the gateway considers up or down")
        print(f"  {self._service}    the page of the first APPO server")
        print(f"  {self._service}/apps    all its apps, as JSON")
        print("\nTry in another terminal, as root, in this folder:")
        ours = (
            f"{PREFIX}STATE_DIR={self._first.state_dir}",
            f"{PREFIX}BIND={ADDRESSES[0]}:{self._ports[ADDRESSES[0], SERVICE_PORT]}",
        )
        command = shlex.join([*ours, sys.executable, "-m", "container_healthcheck"])
        dockerd = dockerd_pid(Path(self._first.docker_socket))
        for what, text in (
            ("bring the container back", shlex.join(self._docker("start", CONTAINER))),
            ("kill it again", shlex.join(self._docker("kill", CONTAINER))),
            ("take an app out on purpose", f"{command} drain {APP} --reason 'disk change'"),
            ("put it back", f"{command} undrain {APP}"),
            ("a table of all apps", f"{command} list"),
            ("freeze dockerd", f"kill -STOP {dockerd}"),
            ("thaw it", f"kill -CONT {dockerd}"),
        ):
            print(f"  # {what}\n  {text}")
        sys.stdout.flush()

    def _docker(self, verb: str, container: str) -> list[str]:
        path = self._first.docker_socket
        if shutil.which("docker"):
            return ["docker", "-H", f"unix://{path}", verb, container]
        api = f"http://docker/containers/{container}/{verb}"
        return ["curl", "-s", "-X", "POST", "--unix-socket", path, api]


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms after that command was given"


def _print_lines(log: str, about: str) -> None:
    def lines() -> list[str]:
        return [line for line in Path(log).read_text().splitlines() if about in line]

    for line in wait_until(lines, bool, f"a line with {about!r} in {log}"):
        # Which request nginx was at does not matter.
        print(f"    {re.sub(r', (context|client): .*', '', line)}")


def _run(*command: str, quiet: bool = False) -> None:
    print(f"\n$ {shlex.join(command)}", flush=True)
    output = subprocess.DEVNULL if quiet else None
    subprocess.run(command, stdout=output, check=True)
    print(flush=True)


if __name__ == "__main__":
    sys.exit(main())
