"""The board: where checks read, and where clients wait for a change."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from container_healthcheck.model.host_state import HostState
from container_healthcheck.model.report import Report

# How long an answer waits for what another worker may already have answered, in seconds.
LONGEST_CATCH_UP = 1.0


class Board:
    """Holds the host state of this worker and the report that follows from it.

    `latest` returns the position of the last message that the leader has published: an answer waits
    until this worker has applied that message, so that no client sees an older state after a newer
    one, whichever workers it asks. When the message does not arrive in time (the leader was killed
    or is frozen), this worker answers from what it has.

    Messages are applied by one thread at a time; checks read at any time and take the lock only to
    renew an outdated report.
    """

    def __init__(
        self,
        state: HostState,
        *,
        stale_after: float,
        latest: Callable[[], int] = lambda: 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.state = state
        self._stale_after = stale_after
        self._latest = latest
        self._clock = clock
        self._changed = threading.Condition()
        self._report = self._made(state, None)
        self._not_waited_for = 0
        self._waiting = 0
        self._closing = False

    @property
    def waiting_clients(self) -> int:
        """How many clients of this worker wait for a change."""
        return self._waiting

    @property
    def age(self) -> float | None:
        """How old the snapshot is, in seconds, or None when there has been none."""
        confirmed_at = self.state.snapshot.confirmed_at
        return None if confirmed_at is None else max(self._clock() - confirmed_at, 0.0)

    def close(self) -> None:
        """Ends all waiting, now and from now on. Returns at once."""
        self._closing = True
        with self._changed:
            self._changed.notify_all()

    def evaluate(self, state: HostState, affected: frozenset[str] | None) -> Report:
        """The report on a state that is not shown yet.

        Only the `affected` apps are new in it, or, for None, all of them.
        """
        if affected is None:
            return self._made(state, None)
        return self._made(state, self._report, affected)

    def show(self, state: HostState, report: Report) -> None:
        """Answers from this state from now on, and wakes the clients that wait."""
        with self._changed:
            self.state, self._report = state, report
            self._changed.notify_all()

    def publish(self, state: HostState, affected: frozenset[str] | None) -> Report:
        """Evaluates a state and shows it."""
        report = self.evaluate(state, affected)
        self.show(state, report)
        return report

    def report(self) -> Report:
        """What can be answered now."""
        if self._latest() > self.state.position:
            self._catch_up()
        return self._fresh()

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
                    now = self._clock()
                    if not is_known(report) or now >= deadline or self._closing:
                        return report
                    # A snapshot becomes stale without a message.
                    self._changed.wait(min(deadline, report.valid_until) - now)
            finally:
                self._waiting -= 1

    def _catch_up(self) -> None:
        target = self._latest()
        if target <= self._not_waited_for:
            return
        with self._changed:
            if not self._changed.wait_for(
                lambda: self.state.position >= target or self._closing, LONGEST_CATCH_UP
            ):
                self._not_waited_for = target

    def _fresh(self) -> Report:
        if self._clock() >= self._report.valid_until:
            with self._changed:
                if self._clock() >= self._report.valid_until:
                    self._report = self._made(self.state, self._report)
        return self._report

    def _made(
        self, state: HostState, before: Report | None, affected: frozenset[str] = frozenset()
    ) -> Report:
        return Report(
            state.snapshot,
            state.probes.failing,
            state.drains,
            now=self._clock(),
            stale_after=self._stale_after,
            before=before,
            affected=affected,
        )
