"""The service: speed, memory, idle load, and how soon a change is known."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benchmarks.load import Load, cpu_seconds, memory, middle, open_files, wrk
from sandbox.crowd import Crowd
from sandbox.engine import PrivateEngine
from sandbox.nginx import Nginx
from sandbox.service import RunningService
from sandbox.waiting import free_port, wait_for, wait_until

SIZES = (10, 100, 300)
ROUNDS = 7
SECONDS = 2
IDLE_SECONDS = 30
MANY_CHECKS = 200_000
CHANGES = 100
CROWDS = (50, 1000)
CROWD_ROUNDS = 25


def tables() -> Iterator[str]:
    """The Markdown tables, each as soon as it is measured."""
    with PrivateEngine() as engine:
        yield from _speed(engine)
        yield _changes(engine)
        yield _waiting(engine)


def _speed(engine: PrivateEngine) -> Iterator[str]:
    rows = []
    running = 0
    for size in SIZES:
        for number in range(running, size):
            engine.run(f"app{number}-1709878117")
        running = size
        with _service(engine) as service:
            rows.append(_compare(service, size))
            if size == SIZES[-1]:
                rest = [_memory(service), _idle(engine)]
    first, last = rows[0][1], rows[-1][1]
    yield (
        _table(
            (
                "containers",
                "path",
                "requests/s",
                "p50 ms",
                "p99 ms",
                "of `/health` in the same round",
            ),
            [line for lines, _ in rows for line in lines],
        )
        + f"\nThe check with {SIZES[-1]} containers against {SIZES[0]}: {last / first:.2f}."
    )
    yield from rest


def _service(engine: PrivateEngine, **settings: object) -> RunningService:
    return RunningService(engine.url, environment={"COVERAGE_PROCESS_START": ""}, **settings)  # type: ignore[arg-type]


def _compare(service: RunningService, size: int) -> tuple[Sequence[tuple[object, ...]], float]:
    """The rows of one size, and the check's median rate; the two paths are loaded in turn."""
    base = f"http://{service.host}:{service.port}{service.prefix}"
    paths = {"/health": f"{base}/health", "check": f"{base}/apps/health/app1"}
    wait_for(lambda: service.code("app1") == 0, "the first picture")
    loads: dict[str, list[Load]] = {name: [] for name in paths}
    for _ in range(ROUNDS):
        for name, url in paths.items():
            loads[name].append(wrk(url, seconds=SECONDS))
    middles = {name: middle(found) for name, found in loads.items()}
    rows = []
    for name, load in middles.items():
        shown = "/apps/health/&lt;app_code&gt;" if name == "check" else name
        # Of each round by itself, so that a machine that slows down in between does not decide.
        pairs = zip(loads[name], loads["/health"], strict=True)
        ratio = statistics.median(one.rate / other.rate for one, other in pairs)
        figures = (f"{load.rate:.0f}", f"{load.p50:.2f}", f"{load.p99:.2f}", f"{ratio:.2f}")
        rows.append((size, shown, *figures))
    return rows, middles["check"].rate


def _pids(service: RunningService) -> list[int]:
    assert service.process is not None
    return [service.process.pid, *service.workers()]


def _memory(service: RunningService) -> str:
    url = f"http://{service.host}:{service.port}{service.prefix}/apps/health/app1"
    wrk(url, seconds=1)
    rows = [("2,000", f"{memory(_pids(service)):.1f}", open_files(_pids(service)))]
    done = 0
    while done < MANY_CHECKS:
        done += wrk(url, seconds=10).requests
    rows.append((f"{done:,}", f"{memory(_pids(service)):.1f}", open_files(_pids(service))))
    return _table(("after checks", "memory of all processes (PSS), MB", "open files"), rows)


def _idle(engine: PrivateEngine) -> str:
    port = free_port()
    nginx = f"server {{ listen 127.0.0.1:{port}; return 200; }}"
    probe_url = f"http://127.0.0.1:{port}/o/{{app_code}}/"
    rows = []
    with Nginx(nginx):
        for name, settings in (("off", {}), ("on, every 5 s", {"probe_url": probe_url})):
            with _service(engine, **settings) as service:
                time.sleep(2)
                before = cpu_seconds(_pids(service))
                time.sleep(IDLE_SECONDS)
                used = (cpu_seconds(_pids(service)) - before) / IDLE_SECONDS
                rows.append((SIZES[-1], name, f"{100 * used:.2f} %"))
    return _table(("containers", "probe", "idle, of one core"), rows)


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
    return _table(header, rows)


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
    return _table(header, rows)


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


def _table(header: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
