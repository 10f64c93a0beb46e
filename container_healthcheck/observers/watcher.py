"""The watcher: follows what the engine says of the host's containers, in the background.

When the engine's stream of events breaks it pauses, subscribes again from where it was and lists
all containers; what is known stays.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import closing

from container_healthcheck.model.snapshot import Snapshot
from container_healthcheck.observers.engine import EngineError
from container_healthcheck.observers.retry import Retry
from container_healthcheck.observers.subscription import (
    Observation,
    Publish,
    Source,
    Subscription,
)

log = logging.getLogger(__name__)

# How long a stream must have held not to count as another failure, in seconds.
HELD = 10.0


class Watcher:
    """Watches one engine and publishes what it shows.

    `connect` makes an engine client whose questions take at most so many seconds; `snapshot`
    returns what is known now. `handled_to` is the engine's time of the latest event that was
    handled, by another leader perhaps, in nanoseconds. Other times are in seconds.
    """

    def __init__(
        self,
        connect: Callable[[float], Source],
        snapshot: Callable[[], Snapshot],
        publish: Publish,
        *,
        handled_to: int = 0,
        docker_timeout: float,
        resync_interval: float,
    ) -> None:
        self._connect = connect
        self._snapshot = snapshot
        self._publish = publish
        self._handled_to = handled_to
        self._first_subscribed_at = 0
        self._docker_timeout = docker_timeout
        self._resync_interval = resync_interval
        self._retry = Retry(docker_timeout)
        self._stopping = threading.Event()
        self._tried = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)

    def start(self) -> None:
        """Begins to watch, in the background."""
        self._thread.start()

    def stop(self) -> None:
        """Stops watching: nothing is published after this. Returns at once."""
        self._stopping.set()

    def wait_tried(self, timeout: float) -> bool:
        """Waits until all containers were listed, or that has failed once; `timeout` in seconds."""
        return self._tried.wait(timeout)

    def _run(self) -> None:
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                self._follow()
                if time.monotonic() - began >= HELD:
                    self._retry.succeeded()
                self._retry.failed()
            except EngineError as error:
                log.debug("engine: %s", error.fault.text)
                self._retry.failed(error.fault)
                self._take(Observation(fault=error.fault))
            except Exception:
                log.exception("unexpected error in the watcher; subscribing again")
                self._retry.failed()
            self._stopping.wait(self._retry.pause)

    def _follow(self) -> None:
        """Follows one subscription to its end. Raises EngineError when there can be none."""
        subscribed_at = time.time_ns()
        # Until an event was handled, everything since the first subscription is to come again.
        since = self._handled_to or self._first_subscribed_at
        self._first_subscribed_at = self._first_subscribed_at or subscribed_at
        with closing(self._connect(self._retry.patience)) as streamer:
            stream = streamer.subscribe(_as_engine_time(since) if since else None)
            with closing(stream):
                Subscription(
                    self._connect,
                    stream,
                    self._snapshot,
                    self._take,
                    handled_to=self._handled_to,
                    subscribed_at=subscribed_at,
                    docker_timeout=self._docker_timeout,
                    resync_interval=self._resync_interval,
                ).follow(self._stopping)

    def _take(self, observation: Observation) -> None:
        if self._stopping.is_set():
            return
        self._publish(observation)
        self._handled_to = observation.handled_to or self._handled_to
        if observation.confirmed_at is not None or observation.fault is not None:
            self._tried.set()


def _as_engine_time(nanoseconds: int) -> str:
    seconds, rest = divmod(nanoseconds, 10**9)
    return f"{seconds}.{rest:09d}"
