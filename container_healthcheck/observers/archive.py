"""The archive: what all workers know, in a file that outlives them, for the next start.

Each service has files of its own, named after the address it listens on: two may share a folder.
A file is written beside its place and renamed into it: a reader sees all of it or none. A file that
cannot be read, is of another version or from before a reboot counts for nothing. It is not forced
onto the disk: what a power cut loses would count for nothing after it.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VERSION = 1
LARGEST = 64 << 20
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# How far the moment of the boot, as the clocks tell it, may move while the machine runs.
_SAME_BOOT = 60.0


class ArchiveError(Exception):
    """What is kept cannot be used, or nothing can be kept. The text says why."""


@dataclass(frozen=True, slots=True)
class Boot:
    """Which boot of the machine this is: the kernel's word where it can be read, and the clock's.

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


class Archive:
    """One file, in a folder that may not be there; `kind` says what the service keeps in it."""

    def __init__(self, folder: Path, kind: str, address: str) -> None:
        self.path = folder / f"{kind}-{address}.json"

    def load(self) -> Any:
        """What was saved last, or None where nothing was. Raises ArchiveError."""
        try:
            with self.path.open("rb") as file:
                fields = json.loads(file.read(LARGEST))
            if fields["version"] != VERSION:
                raise ArchiveError(f"{self.path} is of another version")
            if not Boot(str(fields["boot"]), float(fields["booted_at"])).is_same(this_boot()):
                raise ArchiveError(f"{self.path} is from before the machine was booted")
            return fields["known"]
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ArchiveError(f"{self.path} cannot be read: {error.strerror}") from error
        except (KeyError, OverflowError, RecursionError, TypeError, ValueError) as error:
            raise ArchiveError(f"{self.path} cannot be used: {error!r}"[:300]) from error

    def save(self, known: Any) -> None:
        """Keeps this. Raises ArchiveError, and then what was kept before stays."""
        boot = this_boot()
        fields = {"version": VERSION, "boot": boot.id, "booted_at": boot.began_at, "known": known}
        text = json.dumps(fields, separators=(",", ":"))
        beside = self.path.with_suffix(f".{os.getpid()}.new")
        try:
            try:
                beside.write_text(text)
                beside.replace(self.path)
            except BaseException:
                beside.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise ArchiveError(f"{self.path} cannot be written: {error.strerror}") from error
