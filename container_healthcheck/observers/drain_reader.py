"""Reads the drain marks again and again, in the background."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from container_healthcheck.model.drains import Drains
from container_healthcheck.observers.drain_folder import DrainFolder

log = logging.getLogger(__name__)

# How often the marks are read, and how long that may take before it is reported, in seconds.
PAUSE, PATIENCE = 0.2, 5.0


class DrainReader:
    """Gives the marks in force to `take` whenever they change.

    `offload` runs work that may block (the disk of the folder may hang) outside of the event loop,
    and returns when it is done.
    """

    def __init__(
        self,
        folder: DrainFolder,
        take: Callable[[Drains], None],
        offload: Callable[[Callable[[], None]], None],
    ) -> None:
        self._folder = folder
        self._take = take
        self._offload = offload
        self._current: Drains | None = None
        self._asked_at: float | None = None
        self._problem = ""
        self._stopping = threading.Event()
        self._has_read = threading.Event()

    def start(self) -> None:
        """Begins to read."""
        threading.Thread(target=self._run, name="drains", daemon=True).start()

    def stop(self) -> None:
        """Reads no more. Returns at once."""
        self._stopping.set()

    def wait_read(self, timeout: float) -> bool:
        """Waits until the marks were read once; `timeout` is in seconds."""
        return self._has_read.wait(timeout)

    def report_hang(self) -> None:
        """Logs once that the disk does not answer."""
        asked_at = self._asked_at
        if asked_at is not None and time.monotonic() - asked_at > PATIENCE:
            self._report(
                f"the drain marks in {self._folder.path} cannot be read: the disk does not answer:"
                " those that are known stay in force, and new ones do not count"
            )

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._read()
            except Exception:
                log.exception("unexpected error while drain marks were read; continuing")
            self._stopping.wait(PAUSE)

    def _read(self) -> None:
        found: list[Drains] = []
        self._asked_at = time.monotonic()
        try:
            self._offload(lambda: found.append(self._folder.current()))
        finally:
            self._asked_at = None
        self._report(self._folder.problem)
        if found[0] is not self._current and not self._stopping.is_set():
            self._take(found[0])
            self._current = found[0]
        self._has_read.set()

    def _report(self, problem: str) -> None:
        if problem not in ("", self._problem):
            log.error("%s", problem)
        self._problem = problem
