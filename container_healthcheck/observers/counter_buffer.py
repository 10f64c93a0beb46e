"""What the leader has counted since it last published counters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from container_healthcheck.model.counters import Counters, LastProbe
from container_healthcheck.model.message import Message
from container_healthcheck.model.probes import reason_of


class CounterBuffer:
    """Counts on from the counters that were published.

    A leader that ends takes along what it has not published: it is in no count, and no counter runs
    backwards. Callers hold the observer's lock.
    """

    def __init__(self, published: Counters) -> None:
        self._published = published
        self._probes: dict[str, LastProbe] = {}
        self._failures: dict[str, Mapping[str, int]] = {}
        self._events: dict[str, int] = {}

    @property
    def is_empty(self) -> bool:
        """True when there is nothing to publish."""
        return not (self._probes or self._failures or self._events)

    def add_events(self, counts: Mapping[str, int]) -> None:
        """The engine has announced so many events more, by action."""
        for action, count in counts.items():
            before = self._events.get(action, self._published.events.get(action, 0))
            self._events[action] = before + count

    def add_probe(self, app_code: str, probe: LastProbe) -> None:
        """A probe has ended."""
        self._probes[app_code] = probe
        if probe.seen is not None:
            counts = self._failures.get(app_code, self._published.failures.get(app_code, {}))
            reason = reason_of(probe.seen)
            self._failures[app_code] = {**counts, reason: counts.get(reason, 0) + 1}

    def is_shown(self, app_code: str) -> bool:
        """True while a probe of this app is shown, or will be."""
        return app_code in self._published.probes or app_code in self._probes

    def drop_probe(self, app_code: str) -> None:
        """The latest probe of this app is not to be published any more."""
        self._probes.pop(app_code, None)

    def added_to(self, message: Message) -> Message:
        """The message, with what is to be published; what the message says itself is newer."""
        return replace(
            message,
            last_probes={**self._probes, **message.last_probes},
            failures={**self._failures, **message.failures},
            events={**self._events, **message.events},
        )

    def clear(self, published: Counters) -> None:
        """All of it has been published: these are the counters now."""
        self._published = published
        self._probes, self._failures, self._events = {}, {}, {}
