"""This version beside 2.1.0, in turn in one run: start, memory, reloads, and apps that all fail."""

from __future__ import annotations

import contextlib
import io
import statistics
import subprocess
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any

from benchmarks.load import cpu_seconds, memory, table
from sandbox.nginx import Nginx
from sandbox.private_engine import PrivateEngine
from sandbox.running_service import SOURCE, RunningService
from sandbox.waiting import free_port, wait_for

BASELINE = "71c9adca"
"""The commit of version 2.1.0."""

FEW, MANY = 50, 300
ROUNDS = 7
STARTS = (2, 4)
RELOADS = (1, 2, 4)
PROBE_INTERVAL = 1
PROBE_SECONDS = 20

Start = Callable[..., RunningService]


def tables() -> Iterator[str]:
    """The Markdown tables, each as soon as it is measured."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        archive = ["git", "archive", BASELINE]
        done = subprocess.run(archive, cwd=SOURCE, capture_output=True, check=True)
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as files:
            files.extractall(folder, filter="data")
        versions = {"2.1.0": folder, "this": SOURCE}
        engine = stack.enter_context(_engine(FEW))
        yield _starts(engine, versions)
        yield _reloads(engine, versions)
        engine = stack.enter_context(_engine(MANY))
        yield _failing(engine, versions)


@contextlib.contextmanager
def _engine(size: int) -> Iterator[PrivateEngine]:
    with PrivateEngine() as engine:
        for number in range(size):
            engine.run(f"app{number}-1709878117")
        yield engine


def _service(engine: PrivateEngine, source: Path, **settings: Any) -> RunningService:
    return RunningService(
        engine.url, cwd=source, environment={"COVERAGE_PROCESS_START": ""}, **settings
    )


def pids(service: RunningService) -> list[int]:
    """The processes of a service: the master's first."""
    assert service.process is not None
    return [service.process.pid, *service.workers()]


def _in_turn(versions: Mapping[str, Path]) -> Iterator[tuple[str, Path]]:
    for number in range(ROUNDS):
        yield from list(versions.items())[:: -1 if number % 2 else 1]


def _starts(engine: PrivateEngine, versions: Mapping[str, Path]) -> str:
    """Until every worker has answered a check; memory of a service that was asked by then."""
    rows = []
    for workers in STARTS:
        found: dict[str, list[tuple[float, ...]]] = {name: [] for name in versions}
        for name, source in _in_turn(versions):
            service = _service(engine, source, workers=workers)
            with contextlib.ExitStack() as stack:
                began = time.monotonic()
                service.start()
                stack.callback(service.__exit__)
                wall = time.monotonic() - began
                service.settle("app1", 0)
                wait_for(lambda: len(service.workers()) == workers, "all workers")  # noqa: B023
                used = cpu_seconds(pids(service))
                found[name].append((1000 * wall, 1000 * used, memory(pids(service))))
        rows += _compared(found, (workers,))
    header = (
        "workers",
        "version",
        "first answer after, ms",
        "ratio",
        "processor time until all answer, ms",
        "ratio",
        "memory of all processes (PSS), MB",
        "ratio",
    )
    return f"Starts with {FEW} containers, median of {ROUNDS}:\n\n" + table(header, rows)


def _reloads(engine: PrivateEngine, versions: Mapping[str, Path]) -> str:
    """The slowest answer while all workers are replaced, and what went wrong."""
    rows = []
    for workers in RELOADS:
        found: dict[str, list[tuple[float, ...]]] = {name: [] for name in versions}
        for name, source in _in_turn(versions):
            with _service(engine, source, workers=workers) as service:
                service.settle("app1", 0)
                found[name].append(_slowest(service))
        rows += _compared(found, (workers,))
    header = (
        "workers",
        "version",
        "slowest answer during HUP, ms",
        "ratio",
        "refused or wrong",
        "ratio",
    )
    return f"Reloads, median of {ROUNDS}:\n\n" + table(header, rows)


def _slowest(service: RunningService) -> tuple[float, float]:
    times: list[float] = []
    wrong: list[object] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            began = time.monotonic()
            try:
                if service.code("app1"):
                    wrong.append("code")
            except (OSError, HTTPException) as error:
                wrong.append(error)
            times.append(1000 * (time.monotonic() - began))

    thread = threading.Thread(target=ask)
    thread.start()
    old = set(service.workers())
    assert service.process is not None
    service.process.send_signal(1)
    wait_for(
        lambda: not old & set(service.workers()) and len(service.workers()) == len(old),
        "new workers",
    )
    time.sleep(1)
    over.set()
    thread.join()
    return max(times), float(len(wrong))


def _failing(engine: PrivateEngine, versions: Mapping[str, Path]) -> str:
    """What apps cost that all pass, all answer 502, or all refuse after a restart."""
    ports = {"pass": free_port(), "answer 502": free_port()}
    servers = "".join(
        f"server {{ listen 127.0.0.1:{port}; return {200 if what == 'pass' else 502}; }}"
        for what, port in ports.items()
    )
    rows = []
    with Nginx(servers):
        for what in ("pass", "answer 502", "have restarted and refuse"):
            port = ports.get(what, ports["answer 502"])
            found: dict[str, list[tuple[float, ...]]] = {name: [] for name in versions}
            for name, source in versions.items():
                found[name].append(_cost(engine, source, port, what))
            rows += _compared(found, (what,))
    header = (
        f"{MANY} apps, probed every {PROBE_INTERVAL} s, that",
        "version",
        "of one core, %",
        "ratio",
        "written, kB/s",
        "ratio",
    )
    return table(header, rows)


def _cost(engine: PrivateEngine, source: Path, port: int, what: str) -> tuple[float, float]:
    settings: dict[str, Any] = {
        "workers": 2,
        "probe_url": f"http://127.0.0.1:{port}/o/{{app_code}}/",
        "probe_interval": PROBE_INTERVAL,
    }
    with _service(engine, source, **settings) as service:
        code = 0 if what == "pass" else 14
        wait_for(lambda: service.code("app1") == code, f"the code {code}")
        if "restarted" in what:
            for container in engine.client().containers.list():
                container.restart(timeout=0)
        time.sleep(5 * PROBE_INTERVAL)
        used, written = cpu_seconds(pids(service)), _written(pids(service))
        time.sleep(PROBE_SECONDS)
        cost = 100 * (cpu_seconds(pids(service)) - used) / PROBE_SECONDS
        return cost, (_written(pids(service)) - written) / 1000 / PROBE_SECONDS


def _written(processes: list[int]) -> int:
    texts = (Path(f"/proc/{process}/io").read_text() for process in processes)
    return sum(int(text.split("wchar: ")[1].split()[0]) for text in texts)


def _compared(
    found: Mapping[str, list[tuple[float, ...]]], key: tuple[object, ...]
) -> list[tuple[object, ...]]:
    """A row for each version; a ratio is the median of the rounds' own, this version to 2.1.0."""
    rows: list[tuple[object, ...]] = []
    for name, values in found.items():
        cells: list[object] = []
        for mine, theirs in zip(
            zip(*values, strict=True), zip(*found["2.1.0"], strict=True), strict=True
        ):
            ratios = [a / b for a, b in zip(mine, theirs, strict=True) if b]
            cells.append(f"{statistics.median(mine):.1f}")
            cells.append(f"{statistics.median(ratios):.2f}" if ratios else "-")
        rows.append((*key, name, *cells))
    return rows
