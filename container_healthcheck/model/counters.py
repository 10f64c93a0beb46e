"""What the leader counts and what the latest probes showed, for the page and for monitoring.

It changes with every probe, so it is published at most once a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

MOST = 4096
"""Of more apps than these, those that were counted longest ago are forgotten."""

_V = TypeVar("_V")


class LastProbe(NamedTuple):
    """The latest probe of an app.

    `seen` is None for a pass; `asked_at` is in seconds since the epoch, and it took `seconds`.
    """

    seen: str | None
    asked_at: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Counters:
    """Values that only grow, and the latest probes.

    The latest probe of each app; how many probes have failed, by app and reason; how many events
    the engine has announced, by action.
    """

    probes: Mapping[str, LastProbe] = field(default_factory=dict)
    failures: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    events: Mapping[str, int] = field(default_factory=dict)

    def updated(
        self,
        probes: Mapping[str, LastProbe | None],
        failures: Mapping[str, Mapping[str, int]],
        events: Mapping[str, int],
    ) -> Counters:
        """These counters with newer values in place of theirs; a probe that is None is dropped."""
        if not (probes or failures or events):
            return self
        latest = {each: probe for each, probe in {**self.probes, **probes}.items() if probe}
        counted = dict(self.failures)
        for app_code, counts in failures.items():
            touch(counted, app_code, counts)
        return Counters(latest, counted, {**self.events, **events})


def touch(counts: dict[str, _V], app_code: str, count: _V) -> None:
    """Sets an app's count, as the latest of all."""
    counts.pop(app_code, None)
    counts[app_code] = count
    if len(counts) > MOST:
        del counts[next(iter(counts))]
