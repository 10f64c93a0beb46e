"""One subscription to the engine's events: follows what happens until the stream ends.

It subscribes first and lists all containers afterwards, so that nothing can happen unseen in
between. Bad news in an event counts at once; then that one container is listed, again and again
until the list agrees with the event. A full list from time to time refreshes the status texts and
corrects whatever was missed.

Three threads work on it: one reads the stream, one takes the events, one lists. A list that hangs
or fails delays no event, and is asked for again while the stream is followed.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from container_healthcheck.model.container import Container
from container_healthcheck.model.snapshot import Snapshot
from container_healthcheck.model.verdict import Fault
from container_healthcheck.observers.engine import EngineError, Event
from container_healthcheck.observers.pending import PendingContainers
from container_healthcheck.observers.retry import Retry

log = logging.getLogger(__name__)

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


@dataclass(frozen=True, slots=True)
class Observation:
    """What the engine has shown.

    `containers` as in Message; `started` are the ids of those that have started since the last
    observation that was not about events alone; `confirmed_at` is when a full list was asked for,
    on the monotonic clock; `handled_to` is the engine's time of the latest event that both an event
    and a list have been heeded for, in nanoseconds; `events` counts the new ones, by action.
    """

    containers: Mapping[str, Container | None] = field(default_factory=dict)
    started: frozenset[str] = frozenset()
    confirmed_at: float | None = None
    fault: Fault | None = None
    handled_to: int = 0
    events: Mapping[str, int] = field(default_factory=dict)


Publish = Callable[[Observation], None]


class Subscription:
    """Follows one stream of events to its end.

    `connect` makes an engine client whose questions take at most so many seconds; `snapshot`
    returns what is known now; `publish` takes what changes it. `handled_to` is the
    engine's time of the latest event that was handled before, which the engine sends again.
    `subscribed_at` is the engine's time of the subscription: what happened before it is corrected
    by the first list, and is no news. Both are in nanoseconds.
    """

    def __init__(
        self,
        connect: Callable[[float], Source],
        stream: Stream,
        snapshot: Callable[[], Snapshot],
        publish: Publish,
        *,
        handled_to: int = 0,
        subscribed_at: int = 0,
        docker_timeout: float,
        resync_interval: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connect = connect
        self._retry = Retry(docker_timeout)
        self._lister = connect(docker_timeout)
        self._stream = stream
        self._snapshot = snapshot
        self._publish = publish
        self._resync_interval = resync_interval
        self._clock = clock
        self._handled_before = handled_to
        self._subscribed_at = subscribed_at
        self._is_catching_up = True
        self._events: queue.Queue[Event | None] = queue.Queue()
        self._has_ended = False
        self._pending = PendingContainers()
        self._unannounced: dict[str, float] = {}
        self._started: set[str] = set()
        self._noted_to = 0
        self._resync_at = 0.0
        # Held while an event or a list is applied, never while the engine is asked.
        self._lock = threading.RLock()
        self._is_due = threading.Event()

    def follow(self, stopping: threading.Event) -> None:
        """Follows until `stopping` is set, or until the stream ends or proves stalled."""
        for work in (self._read, self._keep_listing):
            threading.Thread(target=work, name="events", daemon=True).start()
        try:
            while not (stopping.is_set() or self._has_ended or self.has_stalled()):
                self.note(self._gather())
        finally:
            self._end()

    def _end(self) -> None:
        """Ends this subscription: what a list says from here on does not count."""
        with self._lock:
            self._has_ended = True
        self._events.put(None)
        self._is_due.set()

    def _read(self) -> None:
        try:
            for event in self._stream:
                self._events.put(event)
        except EngineError as error:
            log.debug("engine: %s; subscribing again", error.fault.text)
        self._end()

    def _gather(self) -> list[Event]:
        """The events that have come, after waiting for the next one for a while."""
        found: list[Event] = []
        try:
            item = self._events.get(timeout=LONGEST_SLEEP)
            while item is not None:
                found.append(item)
                item = self._events.get_nowait()
        except queue.Empty:
            pass
        return found

    def _keep_listing(self) -> None:
        try:
            while not self._has_ended:
                pause = self.list_due()
                # The end may have come just before `list_due` took back that something is due.
                if not self._has_ended:
                    self._is_due.wait(pause)
        except Exception:
            log.exception("unexpected error while containers were listed; subscribing again")
            self._end()
        finally:
            self._lister.close()

    def note(self, events: Sequence[Event]) -> None:
        """Takes events as they come: bad news counts at once, the list is asked afterwards.

        Events that came together count together: a restart that was over before it could be
        published is not a death.
        """
        # The engine sends the last event that was handled once more.
        fresh = [each for each in events if not each.time or each.time != self._handled_before]
        if not fresh:
            return
        with self._lock:
            if self._has_ended:
                return
            now = self._clock()
            for event in fresh:
                self._pending.note(event, now)
                self._unannounced.pop(event.container_id, None)
                self._noted_to = event.time or self._noted_to
            self._started.update(each.container_id for each in fresh if each.action == "start")
            # "health_status: unhealthy" and the like say more than the action.
            counts = Counter(each.action.partition(":")[0] for each in fresh)
            ids = {each.container_id for each in fresh if self._is_news(each)}
            bad_news = self._pending.bad_news(ids, self._snapshot().containers)
            self._publish(Observation(containers=bad_news, events=counts))
        self._is_due.set()

    def _is_news(self, event: Event) -> bool:
        """False for an event from before this subscription, until the first list is there."""
        self._is_catching_up &= 0 < event.time <= self._subscribed_at
        return not self._is_catching_up

    def list_due(self) -> float:
        """Lists what is due: all containers, or those whose events the list has not shown yet.

        Returns how long it is until something is due again, in seconds. When the engine fails, the
        full list is due after a pause.
        """
        self._is_due.clear()
        try:
            if self._clock() >= self._resync_at:
                self._list_all()
            self._list_some()
        except EngineError as error:
            return self._failed(error.fault)
        self._retry.succeeded()
        with self._lock:
            return max(self._pending.next_due(self._resync_at) - self._clock(), 0)

    def _failed(self, fault: Fault) -> float:
        log.debug("engine: %s", fault.text)
        with self._lock:
            if not self._has_ended:
                self._publish(Observation(fault=fault))
        self._retry.failed(fault)
        self._lister.close()
        self._lister = self._connect(self._retry.patience)
        self._resync_at = self._clock() + self._retry.pause
        return self._retry.pause

    def _list_all(self) -> None:
        with self._lock:
            asked_at, handled_to, started = self._clock(), self._noted_to, frozenset(self._started)
        listed = self._lister.containers()
        with self._lock:
            old = self._snapshot()
            corrected = self._pending.corrected(listed)
            changes = old.differences(corrected)
            self._show(Observation(changes, started, asked_at, handled_to=handled_to))
            self._is_catching_up = False
            self._resync_at = self._clock() + self._resync_interval
            if old.confirmed_at is not None:
                for each in _changed(old.containers.values(), corrected) - self._pending.ids:
                    self._unannounced.setdefault(each, asked_at + LATE_EVENT)

    def _list_some(self) -> None:
        with self._lock:
            asked_at, handled_to = self._clock(), self._noted_to
            ids = self._pending.due(asked_at)
            started = frozenset(self._started.intersection(ids))
        if not ids:
            return
        listed = self._lister.containers(ids=ids)
        with self._lock:
            self._pending.settle(ids, listed, asked_at, self._clock())
            corrected = self._pending.corrected(listed)
            gone: dict[str, Container | None] = dict.fromkeys(ids)
            changes = {**gone, **{each.id: each for each in corrected}}
            self._show(Observation(changes, started, handled_to=handled_to))

    def _show(self, observation: Observation) -> None:
        if not self._has_ended:
            self._publish(observation)
            # Only now: what could not be published is to be listed again.
            self._started -= observation.started

    def has_stalled(self) -> bool:
        """True when a list has shown what no event announced: others may be missing as well."""
        now = self._clock()
        with self._lock:
            return any(deadline <= now for deadline in self._unannounced.values())


def _changed(old: Iterable[Container], new: Iterable[Container]) -> set[str]:
    """The ids of the containers that differ in what events announce."""

    def facts(containers: Iterable[Container]) -> set[tuple[str, str, str, str]]:
        return {(each.id, each.name, each.state, each.health) for each in containers}

    return {each[0] for each in facts(old) ^ facts(new)}
