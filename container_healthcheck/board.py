"""The board: where checks read what can be said now, and where callers wait for changes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from container_healthcheck.model.drains import Drains
from container_healthcheck.model.history import History
from container_healthcheck.model.probes import Observed
from container_healthcheck.model.report import Report
from container_healthcheck.model.snapshot import Snapshot


class Board:
    """Joins the newest snapshot, the probe failures and the drain marks into reports.

    `drains` returns the marks in force, the same object until they change; `history` and `observed`
    are what all workers know, once `catch_up` was called all that any of them has said so far.
    Publishing is the monitor's; checks read at any time.
    The lock is held for as long as a report takes to make, and whoever holds it waits for no other.
    """

    def __init__(
        self,
        drains: Callable[[], Drains],
        *,
        stale_after: float,
        history: History | None = None,
        observed: Callable[[], Observed] = Observed,
        catch_up: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.history = history or History()
        self.observed = observed
        self.catch_up = catch_up
        self._drains = drains
        self._stale_after = stale_after
        self._clock = clock
        self._snapshot = Snapshot()
        self._failing: Mapping[str, str] = {}
        self._touched: set[str] = set()
        self._judged: set[str] = set()
        self._changed = threading.Condition()
        self._report = self._make(None)
        self._announced: tuple[Report, int] | None = None
        self._waiting = 0
        self._closing = False

    @property
    def waiting_clients(self) -> int:
        """How many callers wait for a change."""
        return self._waiting

    @property
    def age(self) -> float | None:
        """How old the snapshot is, in seconds, or None when there has been none."""
        confirmed_at = self._snapshot.confirmed_at
        return None if confirmed_at is None else max(self._clock() - confirmed_at, 0.0)

    def close(self) -> None:
        """Ends all waiting, now and from now on. Returns at once."""
        self._closing = True
        with self._changed:
            self._changed.notify_all()

    def publish(
        self, snapshot: Snapshot, failing: Mapping[str, str], touched: frozenset[str]
    ) -> frozenset[str]:
        """Takes the newest of both, in which `touched` apps are new. Returns what `look` does."""
        with self._changed:
            self._snapshot, self._failing = snapshot, failing
            self._touched |= touched
            return self.look()

    def look(self) -> frozenset[str]:
        """Wakes who waits when there is news. Returns the apps judged since the last look.

        Marks change and snapshots grow stale without anybody publishing that.
        """
        with self._changed:
            news = self.report(), self.history.revision
            if news == self._announced:
                return frozenset()
            self._announced = news
            judged, self._judged = frozenset(self._judged), set()
            # Not only when it differs from the last one announced: a check may have shown another
            # in between, from which somebody waits for a change.
            self._changed.notify_all()
            return judged

    def report(self) -> Report:
        """What can be said now."""
        report = self._report
        return report if self._is_current(report) else self._renewed()

    def wait(self, is_known: Callable[[Report], bool], timeout: float) -> Report:
        """The first report that the caller does not know, or the newest when the time is up.

        `timeout` is in seconds.
        """
        deadline = self._clock() + timeout
        with self._changed:
            self._waiting += 1
            try:
                while True:
                    report = self.report()
                    left = deadline - self._clock()
                    if not is_known(report) or left <= 0 or self._closing:
                        return report
                    self._changed.wait(left)
            finally:
                self._waiting -= 1

    def _is_current(self, report: Report) -> bool:
        return (
            report.snapshot is self._snapshot
            and report.failing is self._failing
            and report.drains is self._drains()
            and self._clock() < report.valid_until
        )

    def _renewed(self) -> Report:
        with self._changed:
            if not self._is_current(self._report):
                self._report = self._make(self._report)
            return self._report

    def _make(self, before: Report | None) -> Report:
        touched, self._touched = self._touched, set()
        report = Report(
            self._snapshot,
            self._failing,
            self._drains(),
            now=self._clock(),
            stale_after=self._stale_after,
            before=before,
            touched=touched,
        )
        self._judged |= report.judged
        return report
