"""What the workers of one master share: three files without names, opened before it forks.

They live as long as any of the processes does, over the end of every worker and over a reload, and
in memory where there is such a place: a full disk does not matter then.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import NamedTuple

_IN_MEMORY = Path("/dev/shm")  # noqa: S108


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
    _files = Files(_open(), _open(), _open())
    return _files


def files() -> Files:
    """The files of this worker's master. Without a master, files of this process's own."""
    return _files or prepare()


def _open() -> int:
    folder = _IN_MEMORY if os.access(_IN_MEMORY, os.W_OK) else None
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        return os.dup(file.fileno())
