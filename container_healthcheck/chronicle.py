"""The chronicle: what has happened on the host, told by the worker that leads.

Every worker has one, and only the lead's tells: changes of verdicts in the ledger and the log, what
the probes saw on the sheet. Whoever leads next goes on from there. Whoever calls holds the
monitor's lock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

from container_healthcheck.journal import Journal
from container_healthcheck.model.probes import LastProbe
from container_healthcheck.model.report import Report
from container_healthcheck.observers.replica import Replica
from container_healthcheck.observers.sheet import Sheet
from container_healthcheck.observers.tally import Tally

# How often what the lead has seen is shown to the other workers, in seconds.
SHEET_PAUSE = 1.0


class Chronicle:
    """`events` says how many events this worker has heard of, by action."""

    def __init__(
        self,
        journal: Journal,
        replica: Replica,
        sheet: Sheet,
        events: Callable[[], Mapping[str, int]],
    ) -> None:
        self._journal = journal
        self._replica = replica
        self._sheet = sheet
        self._tally = Tally(events)
        self._sheet_due = 0.0
        # Apps that the journal has not looked at since they were judged.
        self._untold: set[str] = set()

    def judged(self, app_codes: Iterable[str]) -> None:
        """These apps were judged again."""
        self._untold.update(app_codes)

    def probed(self, app_code: str, last: LastProbe) -> None:
        """A probe has ended."""
        self._tally.probed(app_code, last)

    def forget(self, app_code: str) -> None:
        """Nothing of this app is probed any more."""
        self._tally.forget(app_code)

    def leave_to_lead(self) -> None:
        """Another worker tells of what was judged; whoever comes to lead compares all apps."""
        self._untold.clear()

    def begin(self, report: Report, live: Iterable[str]) -> None:
        """This worker leads from now on; the `live` apps have a live container."""
        self._untold.update(report.verdicts, self._replica.history.known)
        self._tally.begin(self._sheet.read(), live)

    def tell(self, report: Report) -> frozenset[str]:
        """Tells all workers what is new. Returns and raises what Replica.tell does.

        Before a snapshot was confirmed nothing can be compared: what is untold stays so.
        """
        if report.snapshot.confirmed_at is None:
            return frozenset()
        if not self._untold and self._replica.history.has_begun:
            return frozenset()
        touched = self._replica.tell(lambda: self._journal.news(report, self._untold))
        self._journal.told()
        self._untold.clear()
        return touched

    def show(self, *, at_once: bool = False) -> None:
        """Shows what the probes saw, once in a while. Raises FileBusyError or OSError."""
        now = time.monotonic()
        if not at_once and now < self._sheet_due:
            return
        self._sheet_due = now + SHEET_PAUSE
        if (observed := self._tally.news()) is not None:
            self._sheet.write(observed)
            self._tally.shown(observed)
