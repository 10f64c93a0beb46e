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


class Watcher:
    """Watches one engine and publishes every new picture.

    `connect` makes an engine client whose questions take at most so many seconds.
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
        self._picture = Picture()
        self._heard_at = 0
        self._since: str | None = None
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
                _Session(self).run()
            except EngineError as error:
                self._note(error.fault)
            except Exception as error:
                log.exception("the watcher stumbled; it starts over")
                self._note(Fault(Code.ENGINE_FAULTY, f"internal error: {error!r}"))
            self._tried.set()
            self._stopping.wait(min(SHORTEST_PAUSE * 2**self._failures, LONGEST_PAUSE))

    def _note(self, fault: Fault) -> None:
        log.debug("engine: %s", fault.text)
        self._failures = min(self._failures + 1, 10)
        self._swap(dataclasses.replace(self._picture, fault=fault))

    def _swap(self, picture: Picture, started: frozenset[str] = frozenset()) -> None:
        self._picture = picture
        self._publish(picture, started)

    @property
    def _patience(self) -> float:
        fault = self._picture.fault
        if fault is None or fault.code is not Code.ENGINE_FAULTY:
            return self._docker_timeout
        patient: float = self._docker_timeout * 2**self._failures
        return max(self._docker_timeout, min(patient, LONGEST_PATIENCE))


class _Session:
    """One subscription, from connecting to its end."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._lister = watcher._connect(watcher._patience)
        self._streamer = watcher._connect(watcher._patience)
        self._events: queue.Queue[Event | EngineError] = queue.Queue()
        self._settling: dict[str, float] = {}
        self._unannounced: dict[str, float] = {}
        self._replayed_until = watcher._heard_at

    def run(self) -> None:
        """Watches until the engine fails or the watcher stops. Raises EngineError."""
        since = self._watcher._since
        self._watcher._since = since or f"{time.time():.3f}"
        try:
            stream = self._streamer.subscribe(since)
            try:
                threading.Thread(target=self._read, args=(stream,), daemon=True).start()
                self._watch()
            finally:
                stream.close()
        finally:
            self._streamer.close()
            self._lister.close()

    def _read(self, stream: Stream) -> None:
        try:
            for event in stream:
                self._events.put(event)
        except EngineError as error:
            self._events.put(error)

    def _watch(self) -> None:
        watcher = self._watcher
        self._list_all()
        watcher._failures = 0
        resync_at = watcher._clock() + watcher._resync_interval
        while not watcher._stopping.is_set():
            self._handle(self._gather(resync_at))
            now = watcher._clock()
            if now >= resync_at:
                self._list_all()
                resync_at = now + watcher._resync_interval
            if any(deadline <= now for deadline in self._unannounced.values()):
                log.debug("the engine's event stream missed a change; subscribing again")
                return

    def _gather(self, resync_at: float) -> list[Event]:
        """The events that are there, after waiting for the next one or the next thing due."""
        due = min([resync_at, *self._settling.values(), *self._unannounced.values()])
        # Now and then the stop flag wants a look as well.
        timeout = min(max(due - self._watcher._clock(), 0), 1.0)
        found: list[Event] = []
        try:
            while True:
                item = self._events.get(timeout=timeout)
                if isinstance(item, EngineError):
                    raise item
                found.append(item)
                timeout = 0
        except queue.Empty:
            return [event for event in found if self._is_news(event)]

    def _is_news(self, event: Event) -> bool:
        if event.time > self._watcher._heard_at:
            seconds, nanoseconds = divmod(event.time, 10**9)
            self._watcher._heard_at = event.time
            self._watcher._since = f"{seconds}.{nanoseconds:09d}"
        return not 0 < event.time <= self._replayed_until

    def _handle(self, events: list[Event]) -> None:
        now = self._watcher._clock()
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
        old = self._watcher._picture
        listed = self._lister.containers(ids=ids)
        kept = [each for each in old.containers.values() if each.id not in ids]
        self._publish([*kept, *listed], old.confirmed_at, started)

    def _list_all(self) -> None:
        watcher = self._watcher
        old = watcher._picture
        asked_at = watcher._clock()
        listed = self._lister.containers()
        self._publish(listed, asked_at, frozenset())
        if old.confirmed_at is not None:
            for each in _changed(old.containers.values(), listed) - self._settling.keys():
                self._unannounced.setdefault(each, asked_at + LATE_EVENT)

    def _publish(
        self, containers: list[Container], confirmed_at: float | None, started: frozenset[str]
    ) -> None:
        watcher = self._watcher
        watcher._swap(draw(containers, watcher._pattern, confirmed_at=confirmed_at), started)
        watcher._tried.set()


def _changed(old: Iterable[Container], new: Iterable[Container]) -> set[str]:
    """The ids of the containers that differ in what events announce."""

    def facts(containers: Iterable[Container]) -> set[tuple[str, str, str, str]]:
        return {(each.id, each.name, each.state, each.health) for each in containers}

    return {each[0] for each in facts(old) ^ facts(new)}
