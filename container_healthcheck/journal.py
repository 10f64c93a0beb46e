"""The journal: one log line for each change of a verdict or of the engine's state.

One worker of all keeps it. What it compares with is the history that all workers share, so nothing
is lost or told twice when another takes over, or when the service starts anew.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from container_healthcheck.model.history import History
from container_healthcheck.model.records import Changed, Found, Record
from container_healthcheck.model.report import Report
from container_healthcheck.model.verdict import Code, Fault, Verdict

log = logging.getLogger(__name__)

_Line = tuple[int, str]
_CALM = (Code.HEALTHY, Code.DRAINED)


class Journal:
    """Compares reports with the history. `clock` tells the time in seconds since the epoch."""

    def __init__(self, history: History, clock: Callable[[], float] = time.time) -> None:
        self._history = history
        self._clock = clock
        self._trouble: Fault | None = None
        self._lines: list[_Line] = []
        self._news: list[_Line] = []

    def write(self) -> None:
        """Logs what was worth a line since the last call."""
        lines, self._lines = self._lines, []
        for level, text in lines:
            log.log(level, "%s", text)

    def told(self) -> None:
        """All workers know the latest news."""
        self._lines += self._news
        self._news = []

    def note_engine(self, report: Report, *, silently: bool) -> None:
        """Compares the trouble with the engine with that of the report before."""
        trouble, known = report.snapshot.fault, self._trouble
        self._trouble = trouble
        if silently or (known and known.code) == (trouble and trouble.code):
            return
        if trouble is None:
            self._lines.append((logging.INFO, "Docker answers again"))
        else:
            self._lines.append((logging.WARNING, trouble.text))

    def news(self, report: Report, judged: Iterable[str]) -> Sequence[Record]:
        """What is new about these apps, to be told to all workers; the snapshot was confirmed.

        Its lines are logged when `told` was called: what could not be told is news once more.
        """
        self._news = []
        known = self._history.known
        if not self._history.has_begun:
            judged = {*report.verdicts, *known}
        now = self._clock()
        changes: list[Changed] = []
        for app_code in sorted(judged):
            old = known[app_code].code if app_code in known else None
            if report.is_listed(app_code):
                verdict = report.verdict(app_code)
                new, why = verdict.code, _why(verdict)
            elif old is None:
                continue
            else:
                # Also where the whole host is drained.
                new, why = Code.NO_CONTAINER, f"no container of {app_code} on this host"
            if old != new:
                changes.append(Changed(now, app_code, old, new, why))
        if self._history.has_begun:
            self._news += _together(changes, report.size) or map(_line, changes)
            return changes
        self._news += _first_lines(report, changes)
        return [
            *(change for change in changes if change.old is not None),
            Found({each.app_code: each.new for each in changes if each.old is None}),
        ]


def _first_lines(report: Report, changes: Iterable[Changed]) -> Iterable[_Line]:
    verdicts = report.verdicts
    healthy = Counter(verdict.is_healthy for verdict in verdicts.values())[True]
    yield logging.INFO, f"watching {len(verdicts)} apps, {healthy} of them healthy"
    told = {change.app_code: change for change in changes}
    for app_code in sorted({*verdicts, *told}):
        verdict, change = report.verdict(app_code), told.get(app_code)
        if change is not None and not (change.old is None and verdict.is_healthy):
            yield _line(change)
        elif change is None and not verdict.is_healthy:
            text = f"{app_code}: still {int(verdict.code)}: {_why(verdict)}"
            yield _level(verdict.code), text


def _together(changes: Sequence[Changed], apps: int) -> list[_Line]:
    """One line for a change that befell all apps alike, as a drain of the host does."""
    news = {(change.new, "" if change.new == Code.HEALTHY else change.reason) for change in changes}
    if len(changes) != apps or apps < 2 or len(news) != 1:
        return []
    olds = {_code(change.old) for change in changes}
    new, why = news.pop()
    old = olds.pop() if len(olds) == 1 else "various"
    return [(_level(new), f"all {apps} apps: {old} -> {int(new)}{why and f': {why}'}")]


def _line(change: Changed) -> _Line:
    text = f"{change.app_code}: {_code(change.old)} -> {int(change.new)}: {change.reason}"
    return _level(change.new), text


def _why(verdict: Verdict) -> str:
    if verdict.container is not None:
        return f"{verdict.container.name} {verdict.container.status}"
    return verdict.reason


def _level(code: int) -> int:
    return logging.INFO if code in _CALM else logging.WARNING


def _code(code: int | None) -> str:
    return "new" if code is None else str(int(code))
