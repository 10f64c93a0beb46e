"""One subscription to the engine's events: keeps the snapshot true until the stream ends.

It subscribes first and lists all containers afterwards, so that nothing can happen unseen in
between. Each event lists that one container again, until the list says what the event said; a full
list from time to time refreshes the status texts and mends whatever was missed.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from container_healthcheck.model.container import Container
from container_healthcheck.model.expectation import Expectation
from container_healthcheck.model.names import NamePattern
from container_healthcheck.model.snapshot import Snapshot
from container_healthcheck.observers.engine import EngineError, Event

log = logging.getLogger(__name__)

# How soon a container is looked at again whose list is behind its events, and for how long, in
# seconds. The time between two looks doubles.
FIRST_LOOK, LONGEST_LOOK, LAST_LOOK = 0.05, 0.8, 15.0
# How long an event may come after the full list that already shows its change, in seconds.
LATE_EVENT = 1.0
LONGEST_SLEEP = 1.0


class Stream(Protocol):
    """A subscription to events; iterating blocks, `close` ends it from elsewhere."""

    def __iter__(self) -> Iterator[Event]: ...

    def close(self) -> None:
        """Ends the subscription."""


class Source(Protocol):
    """What is needed of an engine client."""

    def containers(self, *, ids: Sequence[str] = ()) -> list[Container]:
        """All containers, or those with these ids. Raises EngineError."""

    def subscribe(self, since: str | None = None) -> Stream:
        """The events from now, or from a moment on. Raises EngineError."""

    def close(self) -> None:
        """Closes the connections."""


Publish = Callable[[Snapshot, frozenset[str], Mapping[str, str]], None]
"""Takes each new snapshot, the app codes that it changes, and the containers that were started
since the last one, each with what names that start on every worker."""


@dataclass(slots=True)
class Cursor:
    """What outlasts a subscription: where it was in the engine's story, and what it made of it.

    `heard_at` is the engine's time of the latest event, in nanoseconds; `since` is that, or the
    time of the first subscription, as the engine's API takes it. `counts` are the events heard of,
    by action.
    """

    snapshot: Snapshot = field(default_factory=Snapshot)
    heard_at: int = 0
    since: str = ""
    counts: Counter[str] = field(default_factory=Counter)

    def advance(self, events: Sequence[Event]) -> None:
        """Notes that these were handled: what was not is to come again."""
        if events and events[-1].time:
            seconds, nanoseconds = divmod(events[-1].time, 10**9)
            self.heard_at = events[-1].time
            self.since = f"{seconds}.{nanoseconds:09d}"


@dataclass(frozen=True, slots=True)
class _Pending:
    """A container of which the list does not say yet what its events said.

    It is to be looked at again at `look_at`, `pause` seconds after the last look, and until
    `give_up`.
    """

    expectation: Expectation
    look_at: float
    pause: float
    give_up: float


class Subscription:
    """Follows one stream of events to its end. `publish` takes what the cursor comes to hold."""

    def __init__(
        self,
        cursor: Cursor,
        lister: Source,
        stream: Stream,
        publish: Publish,
        *,
        pattern: NamePattern,
        resync_interval: float,
        clock: Callable[[], float],
    ) -> None:
        self._cursor = cursor
        self._lister = lister
        self._stream = stream
        self._publish = publish
        self._pattern = pattern
        self._resync_interval = resync_interval
        self._clock = clock
        self._events: queue.Queue[Event | EngineError] = queue.Queue()
        self._has_ended = False
        self._pending: dict[str, _Pending] = {}
        self._unannounced: dict[str, float] = {}
        self._replayed = cursor.heard_at
        self._resync_at = 0.0

    def follow(self, stopping: threading.Event) -> None:
        """Keeps the snapshot true until told to stop, or until the stream ends or proves stalled.

        Raises EngineError when the engine does not list its containers.
        """
        # The stream is read beside, since nothing can wait for it and for a moment at once.
        threading.Thread(target=self._read, name="events", daemon=True).start()
        self.resync()
        while not (stopping.is_set() or self._has_ended or self.has_stalled()):
            self.take(self._gather())

    def take(self, events: Sequence[Event]) -> None:
        """Handles these events, and whatever else is due. Raises EngineError."""
        if self._clock() >= self._resync_at:
            self.resync()
        fresh = [event for event in events if not event.time or event.time != self._replayed]
        self._handle(fresh)
        self._cursor.advance(events)
        # "health_status: unhealthy" and the like say more than the action.
        self._cursor.counts.update(event.action.partition(":")[0] for event in fresh)

    def _read(self) -> None:
        try:
            for event in self._stream:
                self._events.put(event)
        except EngineError as error:
            self._events.put(error)

    def has_stalled(self) -> bool:
        """True when a list has shown what no event announced: others may be missing as well."""
        now = self._clock()
        return any(deadline <= now for deadline in self._unannounced.values())

    def _gather(self) -> list[Event]:
        """The events that are there, after waiting for the next one or the next thing due."""
        looks = (pending.look_at for pending in self._pending.values())
        due = min([self._resync_at, *looks, *self._unannounced.values()])
        # Now and then the stop flag wants a look as well.
        timeout = min(max(due - self._clock(), 0), LONGEST_SLEEP)
        found: list[Event] = []
        try:
            while not self._has_ended:
                item = self._events.get(timeout=timeout)
                if isinstance(item, EngineError):
                    log.debug("engine: %s; subscribing again", item.fault.text)
                    self._has_ended = True
                else:
                    found.append(item)
                timeout = 0
        except queue.Empty:
            pass
        return found

    def _handle(self, events: Sequence[Event]) -> None:
        now = self._clock()
        ids = {each for each, pending in self._pending.items() if pending.look_at <= now}
        for event in events:
            ids.add(event.container_id)
            self._expect(event, now)
        started = {each.container_id: _cause(each) for each in events if each.action == "start"}
        if ids:
            self._list_some(ids, started)

    def _expect(self, event: Event, now: float) -> None:
        each = event.container_id
        known = self._pending.get(each)
        expectation = known.expectation if known else Expectation()
        expectation = expectation.after(event.action, event.attributes)
        self._pending[each] = _Pending(expectation, now, FIRST_LOOK, now + LAST_LOOK)
        self._unannounced.pop(each, None)

    def _list_some(self, ids: set[str], started: Mapping[str, str]) -> None:
        listed = self._lister.containers(ids=sorted(ids))
        self._look_again(ids, listed)
        news: dict[str, Container | None] = dict.fromkeys(ids)
        news.update({each.id: each for each in self._corrected(listed)})
        snapshot, touched = self._cursor.snapshot.updated(news, self._pattern)
        self._show(snapshot, touched | self._apps_of(started, snapshot), started)

    def resync(self) -> None:
        """Lists all containers. Raises EngineError."""
        old = self._cursor.snapshot
        asked_at = self._clock()
        listed = self._corrected(self._lister.containers())
        new, touched = old.replaced(listed, self._pattern)
        self._show(replace(new, confirmed_at=asked_at, fault=None), touched, {})
        if old.confirmed_at is not None:
            for each in _changed(old.containers.values(), listed) - self._pending.keys():
                self._unannounced.setdefault(each, asked_at + LATE_EVENT)
        self._resync_at = self._clock() + self._resync_interval

    def _show(
        self, snapshot: Snapshot, touched: frozenset[str], started: Mapping[str, str]
    ) -> None:
        self._publish(snapshot, touched, started)
        # Only now: what a listener stumbled over is to come again.
        self._cursor.snapshot = snapshot

    def _apps_of(self, started: Mapping[str, str], snapshot: Snapshot) -> set[str]:
        """The apps of started containers: a quick restart may leave no other trace."""
        found = (snapshot.containers.get(each) for each in started)
        return {
            app_code
            for each in found
            if each is not None
            for app_code in self._pattern.app_codes(each.name)
        }

    def _look_again(self, ids: Iterable[str], listed: Iterable[Container]) -> None:
        """Forgets what the list has come to agree with, and sets the next look at the rest."""
        now = self._clock()
        by_id = {each.id: each for each in listed}
        for each in ids:
            pending = self._pending.pop(each)
            if not pending.expectation.is_met(by_id.get(each)) and now < pending.give_up:
                pause = min(2 * pending.pause, LONGEST_LOOK)
                look_at = now + pending.pause
                self._pending[each] = replace(pending, look_at=look_at, pause=pause)

    def _corrected(self, listed: Iterable[Container]) -> list[Container]:
        corrected = []
        for each in listed:
            pending = self._pending.get(each.id)
            thought = pending.expectation.applied_to(each) if pending else each
            if thought is not None:
                corrected.append(thought)
        return corrected


def _cause(event: Event) -> str:
    # Without the engine's time two starts could not be told from each other.
    return f"{event.container_id[:12]}@{event.time}" if event.time else ""


def _changed(old: Iterable[Container], new: Iterable[Container]) -> set[str]:
    """The ids of the containers that differ in what events announce."""

    def facts(containers: Iterable[Container]) -> set[tuple[str, str, str, str]]:
        return {(each.id, each.name, each.state, each.health) for each in containers}

    return {each[0] for each in facts(old) ^ facts(new)}
