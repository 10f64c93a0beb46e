"""What the workers of one master share: three files without names, opened before it forks.

They live as long as any of the processes does, over the end of every worker and over a reload, and
in memory where there is such a place. The ledger has its room from the start on: a disk that is
full, or memory, does not matter then.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import NamedTuple

_IN_MEMORY = Path("/dev/shm")  # noqa: S108
# The ledger is written anew from 1 MB on; beside it lies what it is replaced with. In bytes.
_LEDGER_ROOM = 2 << 20


class Files(NamedTuple):
    """Descriptors: of the ledger, of the sheet, and of the one that the lead locks."""

    ledger: int
    sheet: int
    lead: int


# The WSGI server gives no other way from the master to its workers.
_files: Files | None = None


def prepare() -> Files:
    """Opens the files; for the master, before it forks. Raises OSError."""
    global _files
    _files = Files(_open(_LEDGER_ROOM), _open(), _open())
    return _files


def files() -> Files:
    """The files of this worker's master. Without a master, files of this process's own."""
    return _files or prepare()


def _open(room: int = 0) -> int:
    if os.access(_IN_MEMORY, os.W_OK):
        with contextlib.suppress(OSError):
            return _opened(_IN_MEMORY, room)
    try:
        return _opened(None, room)
    except OSError:
        # There is no room anywhere: it starts all the same, and says later what it cannot do.
        return _opened(None, 0)


def _opened(folder: Path | None, room: int) -> int:
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        if room:
            os.posix_fallocate(file.fileno(), 0, room)
        return os.dup(file.fileno())
