"""The state file: what is known of the host, for the next start of the service.

Each service has a file of its own, named after the address that it listens on: two may share a
folder. The file is written beside its place and renamed into it, so a reader sees all of it or none
of it. It is not forced onto the disk: what a power cut loses would not count after it, but for the
history.

Its first line says of which boot it is, then each line is a message, and the last line says that it
is complete.
"""

from __future__ import annotations

import glob
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from container_healthcheck.model import message as messages
from container_healthcheck.model.host_state import HostState, state_of
from container_healthcheck.model.message import MalformedMessageError
from container_healthcheck.model.names import NamePattern
from container_healthcheck.storage import old_history

VERSION = 2
LARGEST = 64 << 20
_END = {"end": True}
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# How far the moment of the boot, as the clocks tell it, may move while the machine runs.
_SAME_BOOT = 60.0


class StateFileError(Exception):
    """The file cannot be used or written. The text says which file and why."""


@dataclass(frozen=True, slots=True)
class Boot:
    """One boot of the machine: the kernel's id where it can be read, and what the clock says.

    A unit may hide the kernel's (`ProcSubset=pid`). `began_at` is in seconds since the epoch.
    """

    id: str
    began_at: float

    def is_same(self, other: Boot) -> bool:
        """True when the machine has not been booted in between."""
        if self.id and other.id:
            return self.id == other.id
        return abs(self.began_at - other.began_at) < _SAME_BOOT


def this_boot() -> Boot:
    """The boot that this process runs in."""
    try:
        boot_id = _BOOT_ID.read_text().strip()
    except OSError:
        boot_id = ""
    return Boot(boot_id, time.time() - time.clock_gettime(time.CLOCK_BOOTTIME))


@dataclass(frozen=True, slots=True)
class Saved:
    """What the file holds.

    `saved_at` is when it was written, in seconds on CLOCK_MONOTONIC, or None where only the history
    counts: `why` says why.
    """

    state: HostState
    saved_at: float | None
    why: str = ""


class StateFile:
    """One file, in a folder that need not exist."""

    def __init__(self, folder: Path, address: str) -> None:
        self.path = folder / f"state-{address}.jsonl"
        self._old_paths = old_history.paths(folder, address)

    def load(self, pattern: NamePattern) -> Saved | None:
        """What was saved last, or None where nothing was. Raises StateFileError."""
        try:
            with self.path.open("rb") as file:
                text = file.read(LARGEST)
        except FileNotFoundError:
            return self._of_2_1(pattern)
        except OSError as error:
            raise StateFileError(f"{self.path} cannot be read: {error.strerror}") from error
        try:
            return self._parsed(text, pattern)
        except MalformedMessageError as error:
            raise StateFileError(f"{self.path} cannot be used: {error}") from error
        except (ArithmeticError, KeyError, RecursionError, TypeError, ValueError) as error:
            raise StateFileError(f"{self.path} cannot be used: {error!r}"[:300]) from error

    def _of_2_1(self, pattern: NamePattern) -> Saved | None:
        path = self._old_paths[0]
        try:
            history = old_history.load(path)
        except (OSError, ValueError) as error:
            raise StateFileError(f"{path} cannot be used: {error!r}"[:300]) from error
        if history is None:
            return None
        return Saved(HostState(pattern, history=history), None, f"{path} is of version 2.1")

    def _parsed(self, text: bytes, pattern: NamePattern) -> Saved:
        head, *lines = [json.loads(line) for line in text.splitlines()]
        if head["version"] != VERSION:
            raise StateFileError(f"{self.path} is of another version")
        if not lines or lines.pop() != _END:
            raise StateFileError(f"{self.path} is not complete")
        state = state_of((messages.from_json(line) for line in lines), pattern)
        state = replace(state, history=state.history.before_start())
        if not Boot(str(head["boot"]), float(head["booted_at"])).is_same(this_boot()):
            why = f"{self.path} is from before a reboot"
            return Saved(HostState(pattern, history=state.history), None, why)
        saved_at = float(head["saved_at"])
        # Also for what is not a number.
        if not saved_at <= time.monotonic():
            raise StateFileError(f"{self.path} is from the future")
        return Saved(state, saved_at)

    def save(self, state: HostState, is_wanted: Callable[[], bool] = lambda: True) -> None:
        """Keeps this state. Raises StateFileError, and then what was kept before stays.

        `is_wanted` is asked at the end: a disk may have taken so long that another worker has saved
        something newer.
        """
        beside = self.path.with_suffix(f".{os.getpid()}.new")
        try:
            try:
                with beside.open("wb") as file:
                    for line in _text(state):
                        file.write(line)
                        # Each write lets the thread that answers run in between.
                        file.flush()
                if is_wanted():
                    beside.replace(self.path)
                else:
                    # Another worker that has begun to save may have removed it.
                    beside.unlink(missing_ok=True)
            except BaseException:
                beside.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise StateFileError(f"{self.path} cannot be written: {error.strerror}") from error

    def remove_strays(self) -> None:
        """Removes what processes that were killed while they saved have left, and 2.1.0's files.

        Raises OSError.
        """
        for old in self._old_paths:
            old.unlink(missing_ok=True)
        # An IPv6 address has brackets.
        for stray in self.path.parent.glob(f"{glob.escape(self.path.stem)}.*.new"):
            stray.unlink(missing_ok=True)


def _text(state: HostState) -> Iterator[bytes]:
    boot = this_boot()
    head = {
        "version": VERSION,
        "boot": boot.id,
        "booted_at": boot.began_at,
        "saved_at": time.monotonic(),
    }
    lines: Iterable[object] = (head, *map(messages.to_json, state.messages()), _END)
    for line in lines:
        yield json.dumps(line, separators=(",", ":")).encode() + b"\n"
