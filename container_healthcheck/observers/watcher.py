"""The watcher: keeps the picture of the host's containers true, in the background.

It subscribes to the engine's events first and lists all containers afterwards, so that nothing can
happen unseen in between. Each event lists that one container again, until the list says what the
event said; a full list from time to time refreshes the status texts and mends whatever was missed.
When the engine breaks or hangs it pauses, connects again and lists again; the last picture stays.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Protocol

from container_healthcheck.model.container import Container
from container_healthcheck.model.expectation import Expectation
from container_healthcheck.model.names import NamePattern
from container_healthcheck.model.snapshot import Picture, draw
from container_healthcheck.model.verdict import Code, Fault
from container_healthcheck.observers.engine import EngineError, Event

log = logging.getLogger(__name__)

# How soon a container is looked at again whose list is behind its events, and for how long, in
# seconds. The time between two looks doubles.
FIRST_LOOK, LONGEST_LOOK, LAST_LOOK = 0.05, 0.8, 15.0
# How long an event may come after the full list that already shows its change, in seconds.
LATE_EVENT = 1.0
# How long to wait before connecting again, and how long a connection must have held not to count
# as another failure, in seconds.
SHORTEST_PAUSE, LONGEST_PAUSE = 0.1, 1.0
HELD = 10.0
# While the engine hangs, questions are held open this long at most: each one given up leaves an
# entry in the frozen engine's queue of connections, and one that is held is answered at once when
# the engine goes on.
LONGEST_PATIENCE = 30.0
LONGEST_SLEEP = 1.0


class Stream(Protocol):
    """A subscription to events; iterating blocks, `close` ends it from elsewhere."""

    def __iter__(self) -> Iterator[Event]: ...

    def close(self) -> None:
        """Ends the subscription."""


class Source(Protocol):
    """What the watcher needs of an engine client."""

    def containers(self, *, ids: Sequence[str] = ()) -> list[Container]:
        """All containers, or those with these ids. Raises EngineError."""

    def subscribe(self, since: str | None = None) -> Stream:
        """The events from now, or from a moment on. Raises EngineError."""

    def close(self) -> None:
        """Closes the connections."""


Publish = Callable[[Picture, frozenset[str]], None]
"""Takes each new picture, with the ids of the containers that were started since the last one."""


@dataclass(slots=True)
class _Memory:
    """What outlasts a subscription.

    `heard_at` is the engine's time of the latest event, in nanoseconds; `since` is that, or the
    time of the first subscription, as the engine's API takes it.
    """

    picture: Picture = field(default_factory=Picture)
    heard_at: int = 0
    since: str = ""


class Watcher:
    """Watches one engine and publishes every new picture.

    `connect` makes an engine client whose questions take at most so many seconds. Times are in
    seconds.
    """

    def __init__(
        self,
        connect: Callable[[float], Source],
        publish: Publish,
        *,
        pattern: NamePattern,
        docker_timeout: float,
        resync_interval: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connect = connect
        self._publish = publish
        self._pattern = pattern
        self._docker_timeout = docker_timeout
        self._resync_interval = resync_interval
        self._clock = clock
        self._memory = _Memory()
        self._failures = 0
        self._stopping = threading.Event()
        self._tried = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)

    def start(self) -> None:
        """Begins to watch, in the background."""
        self._thread.start()

    def stop(self) -> None:
        """Stops watching. Returns at once; the thread ends by itself."""
        self._stopping.set()

    def wait_tried(self, timeout: float) -> bool:
        """Waits until there is a first picture, or a first failure to get one."""
        return self._tried.wait(timeout)

    def _run(self) -> None:
        while not self._stopping.is_set():
            began = self._clock()
            try:
                fault = self._watch()
                if self._clock() - began >= HELD:
                    self._failures = 0
                self._failures = min(self._failures + 1, 10)
                if fault is not None:
                    log.debug("engine: %s", fault.text)
                    self._show(replace(self._memory.picture, fault=fault), frozenset())
            except Exception:
                log.exception("the watcher stumbled; it starts over")
            self._stopping.wait(min(SHORTEST_PAUSE * 2**self._failures, LONGEST_PAUSE))

    def _watch(self) -> Fault | None:
        """Follows one subscription to its end. The fault that kept it from starting or going on."""
        patience = self._patience()
        try:
            with (
                closing(self._connect(patience)) as streamer,
                closing(self._connect(patience)) as lister,
            ):
                self._follow(streamer, lister)
        except EngineError as error:
            return error.fault
        return None

    def _follow(self, streamer: Source, lister: Source) -> None:
        memory = self._memory
        since, memory.since = memory.since, memory.since or f"{time.time():.3f}"
        with closing(streamer.subscribe(since or None)) as stream:
            subscription = _Subscription(
                memory,
                lister,
                stream,
                self._show,
                pattern=self._pattern,
                resync_interval=self._resync_interval,
                clock=self._clock,
            )
            subscription.follow(self._stopping)

    def _show(self, picture: Picture, started: frozenset[str]) -> None:
        self._memory.picture = picture
        self._publish(picture, started)
        self._tried.set()

    def _patience(self) -> float:
        """How long to hold a question open, in seconds."""
        fault = self._memory.picture.fault
        if fault is None or fault.code is not Code.ENGINE_FAULTY:
            return self._docker_timeout
        patient: float = self._docker_timeout * 2**self._failures
        return max(self._docker_timeout, min(patient, LONGEST_PATIENCE))


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


class _Subscription:
    """Follows one stream of events, until it ends."""

    def __init__(
        self,
        memory: _Memory,
        lister: Source,
        stream: Stream,
        show: Publish,
        *,
        pattern: NamePattern,
        resync_interval: float,
        clock: Callable[[], float],
    ) -> None:
        self._memory = memory
        self._lister = lister
        self._stream = stream
        self._show = show
        self._pattern = pattern
        self._resync_interval = resync_interval
        self._clock = clock
        self._events: queue.Queue[Event | EngineError] = queue.Queue()
        self._has_ended = False
        self._pending: dict[str, _Pending] = {}
        self._unannounced: dict[str, float] = {}
        self._replayed = memory.heard_at

    def follow(self, stopping: threading.Event) -> None:
        """Keeps the picture true until told to stop, or until the stream ends or proves stalled.

        Raises EngineError when the engine does not list its containers.
        """
        threading.Thread(target=self._read, daemon=True).start()
        self._list_all()
        resync_at = self._clock() + self._resync_interval
        while not (stopping.is_set() or self._has_ended or self._has_stalled()):
            events = self._gather(resync_at)
            if self._clock() >= resync_at:
                self._list_all()
                resync_at = self._clock() + self._resync_interval
            self._handle([event for event in events if event.time != self._replayed])
            # Only now: what could not be handled is to come again with the next subscription.
            self._remember(events)

    def _read(self) -> None:
        try:
            for event in self._stream:
                self._events.put(event)
        except EngineError as error:
            self._events.put(error)

    def _has_stalled(self) -> bool:
        now = self._clock()
        return any(deadline <= now for deadline in self._unannounced.values())

    def _gather(self, resync_at: float) -> list[Event]:
        """The events that are there, after waiting for the next one or the next thing due."""
        looks = (pending.look_at for pending in self._pending.values())
        due = min([resync_at, *looks, *self._unannounced.values()])
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

    def _remember(self, events: list[Event]) -> None:
        if events and events[-1].time:
            seconds, nanoseconds = divmod(events[-1].time, 10**9)
            self._memory.heard_at = events[-1].time
            self._memory.since = f"{seconds}.{nanoseconds:09d}"

    def _handle(self, events: list[Event]) -> None:
        now = self._clock()
        ids = {each for each, pending in self._pending.items() if pending.look_at <= now}
        for event in events:
            ids.add(event.container_id)
            self._expect(event, now)
        started = frozenset(event.container_id for event in events if event.action == "start")
        if ids:
            self._list_some(sorted(ids), started)

    def _expect(self, event: Event, now: float) -> None:
        each = event.container_id
        known = self._pending.get(each)
        expectation = known.expectation if known else Expectation()
        expectation = expectation.after(event.action, event.attributes)
        self._pending[each] = _Pending(expectation, now, FIRST_LOOK, now + LAST_LOOK)
        self._unannounced.pop(each, None)

    def _list_some(self, ids: list[str], started: frozenset[str]) -> None:
        old = self._memory.picture
        listed = self._lister.containers(ids=ids)
        kept = [each for each in old.containers.values() if each.id not in ids]
        self._look_again(ids, listed)
        containers = [*kept, *self._corrected(listed)]
        self._show(draw(containers, self._pattern, confirmed_at=old.confirmed_at), started)

    def _list_all(self) -> None:
        old = self._memory.picture
        asked_at = self._clock()
        listed = self._corrected(self._lister.containers())
        self._show(draw(listed, self._pattern, confirmed_at=asked_at), frozenset())
        if old.confirmed_at is not None:
            for each in _changed(old.containers.values(), listed) - self._pending.keys():
                self._unannounced.setdefault(each, asked_at + LATE_EVENT)

    def _look_again(self, ids: list[str], listed: list[Container]) -> None:
        """Forgets what the list has come to agree with, and sets the next look at the rest."""
        now = self._clock()
        by_id = {each.id: each for each in listed}
        for each in ids:
            pending = self._pending.pop(each)
            if not pending.expectation.is_met(by_id.get(each)) and now < pending.give_up:
                pause = min(2 * pending.pause, LONGEST_LOOK)
                look_at = now + pending.pause
                self._pending[each] = replace(pending, look_at=look_at, pause=pause)

    def _corrected(self, listed: list[Container]) -> list[Container]:
        corrected = []
        for each in listed:
            pending = self._pending.get(each.id)
            thought = pending.expectation.applied_to(each) if pending else each
            if thought is not None:
                corrected.append(thought)
        return corrected


def _changed(old: Iterable[Container], new: Iterable[Container]) -> set[str]:
    """The ids of the containers that differ in what events announce."""

    def facts(containers: Iterable[Container]) -> set[tuple[str, str, str, str]]:
        return {(each.id, each.name, each.state, each.health) for each in containers}

    return {each[0] for each in facts(old) ^ facts(new)}
