"""The saver: writes the state file in the background.

A disk that hangs, is full or is read-only delays nothing but the file itself; one line says what
will not survive a restart.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from container_healthcheck.model.host_state import HostState
from container_healthcheck.storage.state_file import StateFile, StateFileError

log = logging.getLogger(__name__)

# How often the file is written at most, and how long that may take before it is reported, in
# seconds. On a large host writing takes processor time: it pauses for many times as long.
PAUSE, LONGEST_PAUSE, PATIENCE = 1.0, 10.0, 5.0
PAUSES = 30
_ADVICE = (
    "the last snapshot, what was probed and since when apps have their codes will not survive a"
    " restart; make the folder, let this user write there, or make room"
)

Offload = Callable[[Callable[[], None]], None]
"""Runs something that may block the whole thread, and returns when it is done."""


class Saver:
    """Saves the latest of the states that it is given."""

    def __init__(self, file: StateFile, offload: Offload) -> None:
        self._file = file
        self._offload = offload
        self._latest: tuple[HostState, Callable[[], bool]] | None = None
        self._busy_since: float | None = None
        self._is_reported = False
        self._changed = threading.Condition()
        self._is_urgent = threading.Event()
        self._thread: threading.Thread | None = None

    def save(self, state: HostState, is_wanted: Callable[[], bool]) -> None:
        """Saves this state soon, unless a later one comes first. Returns at once.

        `is_wanted` is asked when the file is written.
        """
        with self._changed:
            self._latest = state, is_wanted
            self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="saver", daemon=True)
                self._thread.start()

    def report_hang(self) -> None:
        """Logs once that the disk does not answer."""
        since = self._busy_since
        if since is not None and time.monotonic() - since > PATIENCE:
            self._report(f"{self._file.path} cannot be written: the disk does not answer")

    def flush(self, timeout: float) -> None:
        """Waits until the latest state is saved, for at most so many seconds."""
        self._is_urgent.set()
        with self._changed:
            self._changed.wait_for(
                lambda: self._latest is None and self._busy_since is None, timeout
            )
        self._is_urgent.clear()

    def _run(self) -> None:
        with self._changed:
            self._busy_since = time.monotonic()
        self._try(self._file.remove_strays)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._latest is not None)
            began = time.monotonic()
            self._save_latest()
            took = time.monotonic() - began
            self._is_urgent.wait(max(PAUSE, min(PAUSES * took, LONGEST_PAUSE)))

    def _save_latest(self) -> None:
        with self._changed:
            latest, self._latest = self._latest, None
            self._busy_since = time.monotonic()
        if latest is not None:
            self._try(lambda: self._file.save(*latest))
        with self._changed:
            self._busy_since = None
            self._changed.notify_all()

    def _try(self, work: Callable[[], None]) -> None:
        try:
            self._offload(work)
        except (StateFileError, OSError) as error:
            self._report(str(error))
        except Exception:
            log.exception("unexpected error in the saver; continuing")
        else:
            self._is_reported = False

    def _report(self, problem: str) -> None:
        if not self._is_reported:
            log.warning("%s: %s", problem, _ADVICE)
        self._is_reported = True
