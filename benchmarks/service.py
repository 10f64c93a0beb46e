"""The service: speed, memory, idle load, and how soon a change is known."""

from __future__ import annotations

import contextlib
import functools
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import benchmarks.seen
from benchmarks.load import (
    Load,
    cpu_seconds,
    in_turn,
    memory,
    middle,
    open_files,
    ratio,
    table,
    wrk,
)
from sandbox.crowd import Crowd
from sandbox.nginx import Nginx
from sandbox.private_engine import IMAGE, SLEEP, PrivateEngine
from sandbox.running_service import RunningService
from sandbox.waiting import free_port, wait_for, wait_until

SIZES = (10, 100, 300)
CHECK = "/apps/health/&lt;app_code&gt;"
ROUNDS = 21
SECONDS = 2
IDLE_SECONDS = 30
MANY_CHECKS = 200_000
CHANGES = 100
CROWDS = (50, 1000)
CROWD_ROUNDS = 25
WORKERS = (1, 2, 4)
HOSTS = (50, 300, 1000, 3000)
HOST_ROUNDS = 7
HOST_SECONDS = 8
EVENTS_A_SECOND = 20
LISTENERS = 20


def tables() -> Iterator[str]:
    """The Markdown tables, each as soon as it is measured."""
    with contextlib.ExitStack() as stack:
        engines = {size: stack.enter_context(_crowded_engine(size)) for size in SIZES}
        yield _speed(engines)
        engine = engines[SIZES[-1]]
        with _service(engine) as service:
            yield _memory(service)
        yield _idle(engine)
        with _service(engine) as service:
            service.settle("app1", 0)
            yield from benchmarks.seen.tables(service, _pids(service))
        yield _changes(engine)
        yield _waiting(engine)
    yield _hosts()


@contextlib.contextmanager
def _crowded_engine(size: int) -> Iterator[PrivateEngine]:
    with PrivateEngine() as engine:
        for number in range(size):
            engine.run(f"app{number}-1709878117")
        yield engine


def _service(engine: PrivateEngine, **settings: object) -> RunningService:
    given: dict[str, Any] = {"workers": 2, **settings}
    return RunningService(engine.url, environment={"COVERAGE_PROCESS_START": ""}, **given)


def _speed(engines: Mapping[int, PrivateEngine]) -> str:
    """The services of all engines run side by side, and all paths are loaded in turn."""
    loads: dict[tuple[int, str], Callable[[], Load]] = {}
    with contextlib.ExitStack() as stack:
        for size, engine in engines.items():
            service = stack.enter_context(_service(engine))
            service.settle("app1", 0)
            base = f"http://{service.host}:{service.port}{service.prefix}"
            for path, url in (("/health", f"{base}/health"), (CHECK, f"{base}/apps/health/app1")):
                loads[size, path] = functools.partial(wrk, url, _pids(service), seconds=SECONDS)
        measured = in_turn(loads, ROUNDS)
    rows = []
    for (size, path), found in measured.items():
        load = middle(found)
        figures = (f"{load.rate:.0f}", f"{load.p50:.2f}", f"{load.p99:.2f}", f"{load.cpu:.0f}")
        of_health = ratio(found, measured[size, "/health"])
        of_few = ratio(found, measured[SIZES[0], path])
        of = (of_health.rate, 1 / of_health.cpu, of_few.rate)
        rows.append((size, path, *figures, *(f"{each:.2f}" for each in of)))
    header = ("containers", "path", "requests/s", "p50 ms", "p99 ms", "processor time, µs")
    ratios = ("of `/health`", "by processor time", f"of {SIZES[0]} containers")
    return (
        f"Median of {ROUNDS} rounds of {SECONDS} s; a ratio is the median of the rounds' own, more "
        "is better:\n\n"
    ) + table((*header, *ratios), rows)


def _pids(service: RunningService) -> list[int]:
    assert service.process is not None
    return [service.process.pid, *service.workers()]


def _memory(service: RunningService) -> str:
    url = f"http://{service.host}:{service.port}{service.prefix}/apps/health/app1"
    wrk(url, _pids(service), seconds=1)
    rows = [("2,000", f"{memory(_pids(service)):.1f}", open_files(_pids(service)))]
    done = 0
    while done < MANY_CHECKS:
        done += wrk(url, _pids(service), seconds=10).requests
    rows.append((f"{done:,}", f"{memory(_pids(service)):.1f}", open_files(_pids(service))))
    return table(("after checks", "memory of all processes (PSS), MB", "open files"), rows)


def _idle(engine: PrivateEngine) -> str:
    port = free_port()
    nginx = f"server {{ listen 127.0.0.1:{port}; return 200; }}"
    probe_url = f"http://127.0.0.1:{port}/o/{{app_code}}/"
    rows = []
    with contextlib.ExitStack() as stack:
        stack.enter_context(Nginx(nginx))
        # All of them at the same time: none has a quieter machine than another.
        services = {
            (workers, name): stack.enter_context(_service(engine, workers=workers, **settings))
            for workers in WORKERS
            for name, settings in (("off", {}), ("on, every 5 s", {"probe_url": probe_url}))
        }
        time.sleep(2 * 5)
        before = {key: cpu_seconds(_pids(each)) for key, each in services.items()}
        time.sleep(IDLE_SECONDS)
        for (workers, name), service in services.items():
            used = (cpu_seconds(_pids(service)) - before[workers, name]) / IDLE_SECONDS
            rows.append((SIZES[-1], workers, name, f"{100 * used:.2f} %"))
    return table(("containers", "workers", "probe", "idle, of one core"), rows)


def _hosts() -> str:
    """What a change costs, and how soon all workers show it, on hosts of different sizes."""
    with contextlib.ExitStack() as stack:
        hosts = {size: stack.enter_context(_Host(size)) for size in HOSTS}
        for number in range(HOST_ROUNDS):
            for size in HOSTS[:: -1 if number % 2 else 1]:
                hosts[size].measure()
        rows = []
        for size, host in hosts.items():
            least = hosts[HOSTS[0]].costs
            ratios = [cost / other for cost, other in zip(host.costs, least, strict=True)]
            rows.append(
                (
                    f"{size:,}",
                    f"{statistics.median(host.costs):.2f}",
                    f"{statistics.median(ratios):.2f}",
                    f"{statistics.median(host.delays):.1f}",
                    f"{max(host.delays):.1f}",
                    f"{memory(_pids(host.service)):.1f}",
                )
            )
    header = (
        "containers",
        "processor time a change, ms",
        f"of {HOSTS[0]} containers",
        f"the last of {LISTENERS} waiting clients hears after, p50 ms",
        "slowest, ms",
        "memory of all processes (PSS), MB",
    )
    return (
        f"{EVENTS_A_SECOND} changes a second in {HOST_ROUNDS} rounds of {HOST_SECONDS} s, the hosts"
        " in turn; what the service needs when idle is taken off:\n\n"
    ) + table(header, rows)


class _Host:
    """One host of a size, with a service and one container that changes; a context manager."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._stack = contextlib.ExitStack()
        self._changes_made = 0
        self.costs: list[float] = []
        self.delays: list[float] = []

    def __enter__(self) -> _Host:
        engine = self._stack.enter_context(PrivateEngine())
        client = engine.client()
        for number in range(self._size - 1):
            # They need not run: each is judged all the same.
            client.api.create_container(IMAGE, SLEEP, name=f"app{number}-1709878117")
        self._container = engine.run("changing-1709878117")
        self.service = self._stack.enter_context(_service(engine))
        self.service.settle("changing", 0)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def measure(self) -> None:
        """One round: at rest, then with changes; then some changes with clients that wait."""
        idle = self._used(lambda: time.sleep(HOST_SECONDS))
        self.costs.append(1000 * (self._used(self._change) - idle) / self._changes_made)
        # A machine under load may still be busy with the last of the changes.
        time.sleep(2)
        self.service.settle("changing", 0)
        for change, code in ((self._container.pause, 13), (self._container.unpause, 0)) * 3:
            etag = self.service.get("/apps/health").headers["ETag"]
            crowd = Crowd(self.service, LISTENERS, etag, 30)
            wait_for(crowd.is_settled, "the clients to wait")
            change()
            began = time.monotonic()
            crowd.listen()
            self.delays.append(1000 * (max(crowd.heard_at) - began))
            self.service.settle("changing", code)

    def _used(self, work: Callable[[], None]) -> float:
        before = cpu_seconds(_pids(self.service))
        work()
        return cpu_seconds(_pids(self.service)) - before

    def _change(self) -> None:
        began = time.monotonic()
        self._changes_made = 0
        while self._changes_made < EVENTS_A_SECOND * HOST_SECONDS:
            (self._container.unpause if self._changes_made % 2 else self._container.pause)()
            self._changes_made += 1
            due = began + self._changes_made / EVENTS_A_SECOND
            time.sleep(max(due - time.monotonic(), 0))


def _changes(engine: PrivateEngine) -> str:
    """How long after `docker …` returns the check says so."""
    container = engine.run("changing-1709878117")
    with _service(engine) as service:
        wait_for(lambda: service.code("changing") == 0, "the first picture")
        found: dict[str, list[float]] = {"kill": [], "start": [], "pause": [], "unpause": []}
        for _ in range(CHANGES):
            for name, change, code in (
                ("kill", container.kill, 13),
                ("start", container.start, 0),
                ("pause", container.pause, 13),
                ("unpause", container.unpause, 0),
            ):
                found[name].append(_time_until(service, change, code))
    rows = [
        (name, len(times), f"{statistics.median(times):.1f}", f"{_p99(times):.1f}")
        for name, times in found.items()
    ]
    header = ("`docker …`", "times", "known after, p50 ms", "known after, p99 ms")
    return table(header, rows)


def _waiting(engine: PrivateEngine) -> str:
    """How long after `docker …` returns the last of many waiting clients has heard of it."""
    container = engine.run("waited-1709878117")
    rows = []
    with _service(engine) as service:
        wait_for(lambda: service.code("waited") == 0, "the first picture")
        for size in CROWDS:
            times = []
            for change, code in ((container.pause, 13), (container.unpause, 0)) * CROWD_ROUNDS:
                etag = service.get("/apps/health").headers["ETag"]
                crowd = Crowd(service, size, etag, 30)
                wait_for(crowd.is_settled, "the clients to wait")
                change()
                began = time.monotonic()
                crowd.listen()
                times.append(1000 * (max(crowd.heard_at) - began))
                wait_until(lambda: service.code("waited"), code.__eq__, "the change everywhere")
            rows.append((size, len(times), f"{statistics.median(times):.1f}", f"{_p99(times):.1f}"))
    header = ("waiting clients", "times", "the last hears after, p50 ms", "p99 ms")
    return table(header, rows)


def _time_until(service: RunningService, change: Callable[[], Any], code: int) -> float:
    """The milliseconds from the command's return until 10 checks in a row say so."""
    change()
    began = time.monotonic()
    right, since = 0, began
    while right < 10:
        asked = time.monotonic()
        if service.code("changing") == code:
            since = since if right else asked
            right += 1
        else:
            right = 0
    return 1000 * (since - began)


def _p99(values: list[float]) -> float:
    return sorted(values)[int(0.99 * (len(values) - 1))]
