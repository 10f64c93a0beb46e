"""The watcher: keeps the snapshot of the host's containers true, in the background.

When the engine breaks or hangs it pauses, connects again and lists again; the last snapshot stays.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace

from container_healthcheck.model.names import NamePattern
from container_healthcheck.model.snapshot import Snapshot
from container_healthcheck.model.verdict import Code, Fault
from container_healthcheck.observers.engine import EngineError
from container_healthcheck.observers.subscription import Cursor, Publish, Source, Subscription

log = logging.getLogger(__name__)

# How long to wait before connecting again, and how long a connection must have held not to count
# as another failure, in seconds.
SHORTEST_PAUSE, LONGEST_PAUSE = 0.1, 1.0
HELD = 10.0
# While the engine hangs, questions are held open this long at most: each one given up leaves an
# entry in the frozen engine's queue of connections, and one that is held is answered at once when
# the engine goes on.
LONGEST_PATIENCE = 30.0


class Watcher:
    """Watches one engine and publishes every new snapshot.

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
    ) -> None:
        self._connect = connect
        self._publish = publish
        self._pattern = pattern
        self._docker_timeout = docker_timeout
        self._resync_interval = resync_interval
        self._cursor = Cursor()
        self._failures = 0
        self._stopping = threading.Event()
        self._tried = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)

    @property
    def events(self) -> Mapping[str, int]:
        """How many events the engine has told of, by action."""
        return dict(self._cursor.counts)

    def start(self) -> None:
        """Begins to watch, in the background."""
        self._thread.start()

    def stop(self) -> None:
        """Stops watching. Returns at once; the thread ends by itself."""
        self._stopping.set()

    def wait_tried(self, timeout: float) -> bool:
        """Waits until there is a first snapshot, or a first failure to get one."""
        return self._tried.wait(timeout)

    def _run(self) -> None:
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                fault = self._watch()
                if time.monotonic() - began >= HELD:
                    self._failures = 0
                self._failures = min(self._failures + 1, 10)
                if fault is not None:
                    log.debug("engine: %s", fault.text)
                    self._show_fault(fault)
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
        cursor = self._cursor
        since, cursor.since = cursor.since, cursor.since or f"{time.time():.3f}"
        with closing(streamer.subscribe(since or None)) as stream:
            subscription = Subscription(
                cursor,
                lister,
                stream,
                self._show,
                pattern=self._pattern,
                resync_interval=self._resync_interval,
                clock=time.monotonic,
            )
            subscription.follow(self._stopping)

    def _show_fault(self, fault: Fault) -> None:
        self._cursor.snapshot = replace(self._cursor.snapshot, fault=fault)
        self._show(self._cursor.snapshot, frozenset(), {})

    def _show(
        self, snapshot: Snapshot, touched: frozenset[str], started: Mapping[str, str]
    ) -> None:
        self._publish(snapshot, touched, started)
        self._tried.set()

    def _patience(self) -> float:
        """How long to hold a question open, in seconds."""
        fault = self._cursor.snapshot.fault
        if fault is None or fault.code is not Code.ENGINE_FAULTY:
            return self._docker_timeout
        patient: float = self._docker_timeout * 2**self._failures
        return max(self._docker_timeout, min(patient, LONGEST_PATIENCE))
