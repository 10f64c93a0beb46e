"""The board: joins what the observers know into verdicts, and lets callers wait for changes.

A Report is everything that can be said at one moment. It is immutable but for what it works out
once and keeps; the next one is made when any of its sources is replaced or its time is up.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import NamedTuple

from container_healthcheck.model import formatter
from container_healthcheck.model.snapshot import Picture
from container_healthcheck.model.verdict import Code, Fault, Verdict, judge
from container_healthcheck.observers.drain_folder import Drains

log = logging.getLogger(__name__)

# How often changes that nobody shows (a drain mark, a picture growing stale) are looked for, while
# somebody waits and otherwise, in seconds. Waking up is what an idle worker's time goes into.
LOOK_INTERVAL = 0.05
IDLE_LOOK_INTERVAL = 1.0


class Check(NamedTuple):
    """An answer to a check, ready to be sent."""

    code: Code
    body: bytes


class Report:
    """The verdicts that one picture, one set of probe failures and one set of drains make.

    `now` and `stale_after` are in seconds, `now` on the clock of the picture's `confirmed_at`.
    """

    def __init__(
        self,
        picture: Picture,
        failing: Mapping[str, str],
        drains: Drains,
        *,
        now: float,
        stale_after: float,
    ) -> None:
        self.picture = picture
        self.failing = failing
        self.drains = drains
        self.fault: Fault | None = picture.fault_at(now, stale_after)
        fresh = picture.confirmed_at is not None and self.fault is None
        self.valid_until = (picture.confirmed_at or 0) + stale_after if fresh else float("inf")
        self._checks: dict[str, Check] = {}

    def verdict(self, app_code: str) -> Verdict:
        """The verdict on one app."""
        return judge(
            app_code,
            drain=self.drains.reason(app_code),
            fault=self.fault,
            candidates=self.picture.by_app.get(app_code, ()),
            probe_failure=self.failing.get(app_code),
        )

    def check(self, app_code: str) -> Check:
        """The answer to a check of one app, which need not be an app that exists."""
        kept = self._checks.get(app_code)
        if kept is not None:
            return kept
        verdict = self.verdict(app_code)
        check = Check(verdict.code, formatter.verdict_body(verdict))
        # Only of apps that exist: what callers make up must not fill the memory.
        if app_code in self.picture.by_app:
            self._checks[app_code] = check
        return check

    @cached_property
    def verdicts(self) -> Mapping[str, Verdict]:
        """The verdicts on all apps that have a container or a drain mark."""
        apps = sorted({*self.picture.apps, *self.drains.apps})
        return {app_code: self.verdict(app_code) for app_code in apps}

    @cached_property
    def codes_body(self) -> bytes:
        """The body of the answer with all codes."""
        codes = {app_code: int(verdict.code) for app_code, verdict in self.verdicts.items()}
        return formatter.codes_body(codes)

    @cached_property
    def etag(self) -> str:
        """A hash of all codes: equal on every worker that sees the same."""
        return hashlib.sha256(self.codes_body).hexdigest()[:32]


class Board:
    """Where checks read, and where they wait.

    `drains` returns the marks in force, the same object until they change. `on_report` is called
    with every new report.
    """

    def __init__(
        self,
        drains: Callable[[], Drains],
        *,
        stale_after: float,
        on_report: Callable[[Report], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._drains = drains
        self._stale_after = stale_after
        self._on_report = on_report
        self._clock = clock
        self._picture = Picture()
        self._failing: Mapping[str, str] = {}
        self._report = self._make()
        self._announced: Report | None = None
        self._changed = threading.Condition()
        self._waiting = 0
        self._awaited = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="board", daemon=True)

    def start(self) -> None:
        """Begins to look for changes that nobody shows, in the background."""
        self._thread.start()

    def stop(self) -> None:
        """Ends all waiting, now and from now on. Returns at once."""
        self._closing = True
        self._awaited.set()
        with self._changed:
            self._changed.notify_all()

    def show_picture(self, picture: Picture) -> None:
        """Takes the watcher's newest picture."""
        self._picture = picture
        self._announce()

    def show_failing(self, failing: Mapping[str, str]) -> None:
        """Takes what the prober saw of the apps that must not be called healthy."""
        self._failing = failing
        self._announce()

    def report(self) -> Report:
        """What can be said now."""
        report = self._report
        if (
            report.picture is self._picture
            and report.failing is self._failing
            and report.drains is self._drains()
            and self._clock() < report.valid_until
        ):
            return report
        self._report = self._make()
        return self._report

    def wait(self, is_known: Callable[[Report], bool], timeout: float) -> Report:
        """The first report that the caller does not know, or the newest when the time is up.

        `timeout` is in seconds.
        """
        deadline = self._clock() + timeout
        with self._changed:
            self._waiting += 1
            self._awaited.set()
            try:
                while True:
                    report = self.report()
                    left = deadline - self._clock()
                    if not is_known(report) or left <= 0 or self._closing:
                        return report
                    self._changed.wait(left)
            finally:
                self._waiting -= 1

    def _make(self) -> Report:
        return Report(
            self._picture,
            self._failing,
            self._drains(),
            now=self._clock(),
            stale_after=self._stale_after,
        )

    def _announce(self) -> None:
        with self._changed:
            report = self.report()
            if report is self._announced:
                return
            self._announced = report
            # Not only when it differs from the last one announced: a check may have shown another
            # in between, from which somebody waits for a change.
            self._changed.notify_all()
            try:
                self._on_report(report)
            except Exception:
                log.exception("a listener to reports stumbled")

    def _run(self) -> None:
        while not self._closing:
            self._awaited.clear()
            if self._waiting:
                time.sleep(LOOK_INTERVAL)
            else:
                self._awaited.wait(IDLE_LOOK_INTERVAL)
            try:
                self._announce()
            except Exception:
                log.exception("the board stumbled; it goes on")
