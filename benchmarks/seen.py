"""What it costs to be seen: scrapes, and pages that people leave open."""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping

from benchmarks.load import Load, busy_seconds, in_background, middle, ratio, table, wrk
from sandbox.running_service import RunningService, ask

SCRAPES = 50
ROUNDS = 9
SECONDS = 3
PAGES = 100
QUIET_SECONDS = 40
# As the page's own script asks: it waits so long for news, and takes all of it anew so often.
WAIT, FRESH, PAUSE = 15, 30, 1.0


def tables(service: RunningService, pids: list[int]) -> Iterator[str]:
    """The Markdown tables of a service whose host does not change."""
    yield _scrapes(service, pids)
    yield _beside(service, pids)
    yield _pages(service, pids)


def _scrapes(service: RunningService, pids: list[int]) -> str:
    costs = []
    for _ in range(SCRAPES):
        before = busy_seconds(pids)
        size = len(service.get("/metrics").body)
        costs.append(1000 * (busy_seconds(pids) - before))
    row = (SCRAPES, f"{size / 1000:.0f}", f"{statistics.median(costs):.1f}", f"{max(costs):.1f}")
    header = ("scrapes of 300 apps", "kB each", "processor time, p50 ms", "most, ms")
    return table(header, [row])


def _beside(service: RunningService, pids: list[int]) -> str:
    """The check with and without somebody who looks, in turn."""
    url = f"http://{service.host}:{service.port}{service.prefix}/apps/health/app1"
    found: dict[str, list[Load]] = {"nobody": [], "a page and a scrape each second": []}
    for number in range(ROUNDS):
        for name in list(found)[:: -1 if number % 2 else 1]:
            with contextlib.ExitStack() as stack:
                if name != "nobody":
                    for path in ("/metrics", "/"):
                        stack.enter_context(_each_second(lambda path=path: service.get(path)))  # type: ignore[misc]
                found[name].append(wrk(url, pids, seconds=SECONDS))
    rows = []
    for name, loads in found.items():
        load, of = middle(loads), ratio(loads, found["nobody"])
        figures = (f"{load.rate:.0f}", f"{load.p50:.2f}", f"{load.p99:.2f}", f"{of.p99:.2f}")
        rows.append((name, *figures))
    header = ("who looks meanwhile", "checks/s", "p50 ms", "p99 ms", "p99 of nobody's")
    return table(header, rows)


def _pages(service: RunningService, pids: list[int]) -> str:
    """All of them are open for a while before it is measured."""
    costs = {}
    for count in (0, PAGES):
        with contextlib.ExitStack() as stack:
            for _ in range(count):
                stack.enter_context(in_background(lambda over: _look(service, over)))
            time.sleep(2 * PAUSE)
            before = busy_seconds(pids)
            time.sleep(QUIET_SECONDS)
            costs[count] = (busy_seconds(pids) - before) / QUIET_SECONDS
    rows = [(count, f"{100 * cost:.2f} %") for count, cost in costs.items()]
    return table(("open pages of 300 apps", "of one core, while nothing changes"), rows)


def _look(service: RunningService, over: threading.Event) -> None:
    tag, made = "", 0.0
    while not over.is_set():
        headers: Mapping[str, str] = {}
        if tag and time.monotonic() - made < FRESH:
            headers = {"If-None-Match": tag, "Prefer": f"wait={WAIT}"}
        answer = ask(service.port, service.prefix + "/", host=service.host, headers=headers)
        if answer.status == 200:
            tag, made = answer.headers["ETag"], time.monotonic()
        over.wait(PAUSE)


def _each_second(act: Callable[[], object]) -> contextlib.AbstractContextManager[None]:
    def work(over: threading.Event) -> None:
        while not over.is_set():
            act()
            over.wait(1)

    return in_background(work)
