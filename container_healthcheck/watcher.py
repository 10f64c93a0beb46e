"""The watcher: keeps the picture of the host's containers true, in the background.

It subscribes to the engine's events first and lists all containers afterwards, so that nothing can
happen unseen in between. Each event lists that one container again; a full list from time to time
refreshes the status texts and mends whatever was missed. When the engine breaks or hangs it pauses,
connects again and lists again; the last picture stays.
"""

from __future__ import annotations

import dataclasses
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Protocol

from container_healthcheck.container import Container
from container_healthcheck.engine import EngineError, Event
from container_healthcheck.names import NamePattern
from container_healthcheck.picture import Picture, draw
from container_healthcheck.verdict import Code, Fault

log = logging.getLogger(__name__)

# Some engine versions announce a change before their own list shows it; a second look settles it.
SETTLE = 0.05
# How long an event may come after the full list that already shows its change, in seconds.
LATE_EVENT = 1.0
SHORTEST_PAUSE, LONGEST_PAUSE = 0.1, 1.0
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
            try:
                self._watch()
            except EngineError as error:
                self._note(error.fault)
            except Exception as error:
                log.exception("the watcher stumbled; it starts over")
                self._note(Fault(Code.ENGINE_FAULTY, f"internal error: {error!r}"))
            self._stopping.wait(min(SHORTEST_PAUSE * 2**self._failures, LONGEST_PAUSE))

    def _watch(self) -> None:
        patience = self._patience()
        with (
            closing(self._connect(patience)) as streamer,
            closing(self._connect(patience)) as lister,
        ):
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
        self._failures = 0
        self._swap(picture, started)

    def _note(self, fault: Fault) -> None:
        log.debug("engine: %s", fault.text)
        self._failures = min(self._failures + 1, 10)
        self._swap(dataclasses.replace(self._memory.picture, fault=fault), frozenset())

    def _swap(self, picture: Picture, started: frozenset[str]) -> None:
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
        self._settling: dict[str, float] = {}
        self._unannounced: dict[str, float] = {}
        self._replayed_until = memory.heard_at

    def follow(self, stopping: threading.Event) -> None:
        """Keeps the picture true until told to stop, or until the stream proves to be stalled.

        Raises EngineError.
        """
        threading.Thread(target=self._read, daemon=True).start()
        self._list_all()
        resync_at = self._clock() + self._resync_interval
        while not stopping.is_set():
            events = self._gather(resync_at)
            self._handle([event for event in events if self._is_news(event)])
            # Only now: what could not be handled is to come again with the next subscription.
            self._remember(events)
            now = self._clock()
            if now >= resync_at:
                self._list_all()
                resync_at = now + self._resync_interval
            if any(deadline <= now for deadline in self._unannounced.values()):
                log.debug("the engine's event stream missed a change; subscribing again")
                return

    def _read(self) -> None:
        try:
            for event in self._stream:
                self._events.put(event)
        except EngineError as error:
            self._events.put(error)

    def _gather(self, resync_at: float) -> list[Event]:
        """The events that are there, after waiting for the next one or the next thing due."""
        due = min([resync_at, *self._settling.values(), *self._unannounced.values()])
        # Now and then the stop flag wants a look as well.
        timeout = min(max(due - self._clock(), 0), LONGEST_SLEEP)
        found: list[Event] = []
        try:
            while True:
                item = self._events.get(timeout=timeout)
                if isinstance(item, EngineError):
                    raise item
                found.append(item)
                timeout = 0
        except queue.Empty:
            return found

    def _is_news(self, event: Event) -> bool:
        """False for an event that an earlier subscription has handled already."""
        return not 0 < event.time <= self._replayed_until

    def _remember(self, events: list[Event]) -> None:
        heard_at = max([event.time for event in events], default=0)
        if heard_at > self._memory.heard_at:
            seconds, nanoseconds = divmod(heard_at, 10**9)
            self._memory.heard_at = heard_at
            self._memory.since = f"{seconds}.{nanoseconds:09d}"

    def _handle(self, events: list[Event]) -> None:
        now = self._clock()
        ids = {event.container_id for event in events}
        settled = {each for each, due in self._settling.items() if due <= now}
        for each in settled:
            del self._settling[each]
        for each in ids:
            self._settling[each] = now + SETTLE
            self._unannounced.pop(each, None)
        started = frozenset(event.container_id for event in events if event.action == "start")
        if ids | settled:
            self._list_some(sorted(ids | settled), started)

    def _list_some(self, ids: list[str], started: frozenset[str]) -> None:
        old = self._memory.picture
        listed = self._lister.containers(ids=ids)
        kept = [each for each in old.containers.values() if each.id not in ids]
        containers = [*kept, *listed]
        self._show(draw(containers, self._pattern, confirmed_at=old.confirmed_at), started)

    def _list_all(self) -> None:
        old = self._memory.picture
        asked_at = self._clock()
        listed = self._lister.containers()
        self._show(draw(listed, self._pattern, confirmed_at=asked_at), frozenset())
        if old.confirmed_at is not None:
            for each in _changed(old.containers.values(), listed) - self._settling.keys():
                self._unannounced.setdefault(each, asked_at + LATE_EVENT)


def _changed(old: Iterable[Container], new: Iterable[Container]) -> set[str]:
    """The ids of the containers that differ in what events announce."""

    def facts(containers: Iterable[Container]) -> set[tuple[str, str, str, str]]:
        return {(each.id, each.name, each.state, each.health) for each in containers}

    return {each[0] for each in facts(old) ^ facts(new)}
