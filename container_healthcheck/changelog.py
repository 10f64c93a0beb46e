"""The change log: one log line for each change of a verdict or of the engine's state.

Pure but for the log: it compares the leader's new report with the history, which survives the
leader and the service, so that nothing is lost or recorded twice.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from container_healthcheck.model.history import Change, History
from container_healthcheck.model.report import Report
from container_healthcheck.model.verdict import Code, Fault, Verdict

log = logging.getLogger(__name__)

_Line = tuple[int, str]
_CALM = (Code.HEALTHY, Code.DRAINED)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is new in a report: `changes` and `found` for the history, and lines for the log."""

    changes: Sequence[Change] = ()
    found: Mapping[str, int] | None = None
    lines: Sequence[_Line] = ()


def write(lines: Iterable[_Line]) -> None:
    """Logs these lines."""
    for level, text in lines:
        log.log(level, "%s", text)


def engine_line(old: Fault | None, new: Fault | None) -> Sequence[_Line]:
    """The line for a change of the engine's state, if there is any."""
    if (old and old.code) == (new and new.code):
        return ()
    if new is None:
        return ((logging.INFO, "Docker is answering again"),)
    return ((logging.WARNING, new.text),)


def compare(
    report: Report,
    history: History,
    evaluated: Iterable[str],
    restarted: Iterable[str],
    at: float,
) -> Comparison:
    """What is new about the `evaluated` apps, at a time in seconds since the epoch.

    The `restarted` apps are recorded also when their code is what it was: nobody could have noticed
    that restart. Before the first confirmed snapshot there is nothing to compare.
    """
    if report.snapshot.confirmed_at is None:
        return Comparison()
    if not history.has_begun:
        evaluated = {*report.verdicts, *history.known}
    restarted = frozenset(restarted)
    found = (_change(app_code, report, history, restarted, at) for app_code in sorted(evaluated))
    changes = [change for change in found if change is not None]
    if history.has_begun:
        lines = _together(changes, report.size) or list(map(_line, changes))
        return Comparison(changes, None, lines)
    return Comparison(
        [change for change in changes if change.old is not None],
        {change.app_code: change.new for change in changes if change.old is None},
        list(_first_lines(report, changes)),
    )


def _change(
    app_code: str, report: Report, history: History, restarted: frozenset[str], at: float
) -> Change | None:
    known = history.known.get(app_code)
    old = None if known is None else known.code
    if report.is_listed(app_code):
        verdict = report.verdict(app_code)
        new, why = int(verdict.code), _why(verdict)
    elif old is None:
        return None
    else:
        # Also where the whole host is drained.
        new, why = int(Code.NO_CONTAINER), f"no container of {app_code} on this host"
    if old == new:
        if app_code not in restarted or new != Code.HEALTHY:
            return None
        why = f"restarted: {why}"
    return Change(at, app_code, old, new, why)


def _first_lines(report: Report, changes: Iterable[Change]) -> Iterable[_Line]:
    verdicts = report.verdicts
    healthy = Counter(verdict.is_healthy for verdict in verdicts.values())[True]
    yield logging.INFO, f"watching {len(verdicts)} apps, {healthy} of them healthy"
    changed = {change.app_code: change for change in changes}
    for app_code in sorted({*verdicts, *changed}):
        verdict, change = report.verdict(app_code), changed.get(app_code)
        if change is not None and not (change.old is None and verdict.is_healthy):
            yield _line(change)
        elif change is None and not verdict.is_healthy:
            text = f"{app_code}: still {int(verdict.code)}: {_why(verdict)}"
            yield _level(verdict.code), text


def _together(changes: Sequence[Change], apps: int) -> list[_Line]:
    """One line for a change that all apps have in common, such as a drain of the host."""
    common = {
        (change.new, "" if change.new == Code.HEALTHY else change.reason) for change in changes
    }
    if len(changes) != apps or apps < 2 or len(common) != 1:
        return []
    olds = {_code(change.old) for change in changes}
    new, why = common.pop()
    old = olds.pop() if len(olds) == 1 else "various"
    return [(_level(new), f"all {apps} apps: {old} -> {int(new)}{why and f': {why}'}")]


def _line(change: Change) -> _Line:
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
