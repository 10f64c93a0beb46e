"""The journal: one log line for each change of a verdict or of the engine's state."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping

from container_healthcheck.board import Report
from container_healthcheck.model.verdict import Code, Fault, Verdict

log = logging.getLogger(__name__)


class Journal:
    """Compares each report with the one before and logs what changed.

    `is_lead` says whether this worker is the one that writes: all workers see the same, and one
    line is enough.
    """

    def __init__(self, is_lead: Callable[[], bool] = lambda: True) -> None:
        self._is_lead = is_lead
        self._verdicts: Mapping[str, Verdict] | None = None
        self._trouble: Fault | None = None

    def note(self, report: Report) -> None:
        """Takes the newest report."""
        if report.picture.confirmed_at is None and report.picture.fault is None:
            return
        lines = [*self._engine_lines(report), *self._verdict_lines(report)]
        if lines and self._is_lead():
            for level, text in lines:
                log.log(level, "%s", text)

    def _engine_lines(self, report: Report) -> list[tuple[int, str]]:
        trouble, known = report.picture.fault, self._trouble
        self._trouble = trouble
        if trouble is None:
            return [(logging.INFO, "Docker answers again")] if known is not None else []
        if known is not None and known.code is trouble.code:
            return []
        return [(logging.WARNING, trouble.text)]

    def _verdict_lines(self, report: Report) -> list[tuple[int, str]]:
        old, new = self._verdicts, report.verdicts
        if report.picture.confirmed_at is None:
            return []
        self._verdicts = new
        if old is None:
            return _first_lines(new)
        gone = {app_code: report.verdict(app_code) for app_code in old.keys() - new.keys()}
        changes = [
            (old.get(app_code), verdict)
            for app_code, verdict in sorted({**new, **gone}.items())
            if app_code not in old or old[app_code].code is not verdict.code
        ]
        together = _together(changes, len(new))
        return [together] if together else [_line(*change) for change in changes]


def _first_lines(verdicts: Mapping[str, Verdict]) -> list[tuple[int, str]]:
    healthy = Counter(verdict.is_healthy for verdict in verdicts.values())[True]
    lines = [(logging.INFO, f"watching {len(verdicts)} apps, {healthy} of them healthy")]
    return lines + [_line(None, each) for each in verdicts.values() if not each.is_healthy]


def _together(changes: list[tuple[Verdict | None, Verdict]], apps: int) -> tuple[int, str] | None:
    """One line for a change that befell all apps alike, as a drain of the host does."""
    news = {(verdict.code, verdict.reason) for _, verdict in changes}
    if len(changes) != apps or apps < 2 or len(news) != 1:
        return None
    olds = {_code(old) for old, _ in changes}
    old = olds.pop() if len(olds) == 1 else "various"
    new = changes[0][1]
    why = f": {new.reason}" if new.reason else ""
    return _level(new), f"all {apps} apps: {old} -> {int(new.code)}{why}"


def _line(old: Verdict | None, new: Verdict) -> tuple[int, str]:
    if new.container is not None:
        why = f"{new.container.name} {new.container.status}"
    else:
        why = new.reason
    return _level(new), f"{new.app_code}: {_code(old)} -> {int(new.code)}: {why}"


def _level(verdict: Verdict) -> int:
    return logging.INFO if verdict.code in (Code.HEALTHY, Code.DRAINED) else logging.WARNING


def _code(verdict: Verdict | None) -> str:
    return "new" if verdict is None else str(int(verdict.code))
