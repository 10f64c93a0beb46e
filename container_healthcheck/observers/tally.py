"""The tally: what the worker that leads has seen and counted, for the sheet.

A lead goes on counting from what the sheet says, which is all that anybody has been shown: so no
counter runs backwards when another worker takes over. What the lead before had counted since it
last wrote (a second at most), and what happens before another leads, is in no count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from container_healthcheck.model.counts import touch
from container_healthcheck.model.probes import LastProbe, Observed, reason_of


class Tally:
    """`events` says how many events this worker's watcher has heard of, by action.

    Whoever calls holds the monitor's lock.
    """

    def __init__(self, events: Callable[[], Mapping[str, int]]) -> None:
        self._events = events
        self._probes: dict[str, LastProbe] = {}
        self._failures: dict[str, Mapping[str, int]] = {}
        # What the leads before had told of, and what this worker had heard of then.
        self._told_events: Mapping[str, int] = {}
        self._heard_before: Mapping[str, int] = {}
        self._shown = Observed()

    def begin(self, shown: Observed, live: Iterable[str]) -> None:
        """Goes on from what the lead before has shown; of its probes, those of these apps count."""
        self._shown = shown
        self._probes = {each: shown.probes[each] for each in live if each in shown.probes}
        self._failures = dict(shown.failures)
        self._told_events, self._heard_before = shown.events, dict(self._events())

    def probed(self, app_code: str, last: LastProbe) -> None:
        """A probe has ended."""
        self._probes[app_code] = last
        if last.seen is not None:
            reason, counted = reason_of(last.seen), self._failures.get(app_code, {})
            touch(self._failures, app_code, {**counted, reason: counted.get(reason, 0) + 1})

    def forget(self, app_code: str) -> None:
        """Nothing of this app is probed any more; what was counted stays."""
        self._probes.pop(app_code, None)

    def news(self) -> Observed | None:
        """What is to be shown, or None when `shown` was called with as much."""
        observed = Observed(dict(self._probes), dict(self._failures), self._counted_events())
        return None if observed == self._shown else observed

    def shown(self, observed: Observed) -> None:
        """All can see this now."""
        self._shown = observed

    def _counted_events(self) -> Mapping[str, int]:
        told, before = self._told_events, self._heard_before
        heard = self._events()
        return {
            action: told.get(action, 0) + heard.get(action, 0) - before.get(action, 0)
            for action in told.keys() | heard.keys()
        }
