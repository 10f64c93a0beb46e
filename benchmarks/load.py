"""One run of wrk, and what processes use."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

_Name = TypeVar("_Name")
_UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0}
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Load:
    """What wrk measured: requests per second, and latencies in milliseconds.

    `cpu` is the processor time of the servers for each request, in microseconds.
    """

    rate: float
    p50: float
    p99: float
    cpu: float
    requests: int


def wrk(url: str, pids: Sequence[int], *, connections: int = 8, seconds: float = 3) -> Load:
    """Loads `url`, which these processes must answer with 200. Raises ValueError if they do not."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", url]
    before = busy_seconds(pids)
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    used = busy_seconds(pids) - before
    if "Non-2xx" in text or "Socket errors" in text:
        raise ValueError(text)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    requests = re.search(r"(\d+) requests in", text)
    if not rate or not requests:
        raise ValueError(text)
    done = int(requests.group(1))
    return Load(
        float(rate.group(1)),
        _percentile(text, 50),
        _percentile(text, 99),
        1e6 * used / done,
        done,
    )


def in_turn(loads: Mapping[_Name, Callable[[], Load]], rounds: int) -> dict[_Name, list[Load]]:
    """Measures each load once a round; every second round goes the other way about."""
    measured: dict[_Name, list[Load]] = {name: [] for name in loads}
    for number in range(rounds):
        for name in list(loads)[:: -1 if number % 2 else 1]:
            measured[name].append(loads[name]())
    return measured


def ratio(ours: Sequence[Load], theirs: Sequence[Load]) -> Load:
    """The median of what each round says by itself: a machine that slows down does not decide."""
    return middle(
        [
            Load(
                our.rate / their.rate,
                our.p50 / their.p50,
                our.p99 / their.p99,
                our.cpu / their.cpu,
                our.requests,
            )
            for our, their in zip(ours, theirs, strict=True)
        ]
    )


def middle(loads: Sequence[Load]) -> Load:
    """The median of each figure: other work on the machine must not decide."""
    return Load(
        statistics.median(load.rate for load in loads),
        statistics.median(load.p50 for load in loads),
        statistics.median(load.p99 for load in loads),
        statistics.median(load.cpu for load in loads),
        sum(load.requests for load in loads),
    )


@contextmanager
def in_background(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Runs `work` in a thread, which must end soon after the event is set."""
    over = threading.Event()
    thread = threading.Thread(target=work, args=[over])
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _percentile(text: str, percent: int) -> float:
    found = re.search(rf"^\s+{percent}%\s+([\d.]+)(us|ms|s)\s*$", text, re.MULTILINE)
    if not found:
        raise ValueError(text)
    return float(found.group(1)) * _UNITS[found.group(2)]


def memory(pids: Iterable[int]) -> float:
    """The proportional set size of these processes together, in megabytes."""
    rollups = (Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in pids)
    sizes = (re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE) for rollup in rollups)
    return sum(int(size.group(1)) for size in sizes if size) / 1024


def open_files(pids: Iterable[int]) -> int:
    """How many files these processes have open together."""
    return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)


def cpu_seconds(pids: Iterable[int]) -> float:
    """The processor time that these processes have used so far."""
    stats = (Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split() for pid in pids)
    return sum(int(fields[11]) + int(fields[12]) for fields in stats) / _TICKS


def busy_seconds(pids: Iterable[int]) -> float:
    """The same to the nanosecond, as the scheduler counts it."""
    stats = (Path(f"/proc/{pid}/schedstat").read_text().split() for pid in pids)
    return sum(int(fields[0]) for fields in stats) / 1e9


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
