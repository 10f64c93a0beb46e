"""A lock between processes, on a file that they share.

It is a POSIX lock: it goes when its holder ends, however it ends. Nobody waits long for it: it is
held for microseconds, unless its holder is frozen.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager

# In seconds.
PATIENCE, PAUSE = 1.0, 0.005


class FileBusyError(Exception):
    """Somebody holds the lock and does not go on."""


@contextmanager
def locked(file: int, *, shared: bool = False) -> Iterator[None]:
    """Keeps other processes out, or with `shared` only those that do not share.

    Raises FileBusyError.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    give_up = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.lockf(file, kind | fcntl.LOCK_NB)
            break
        except OSError:
            if time.monotonic() >= give_up:
                raise FileBusyError from None
            time.sleep(PAUSE)
    try:
        yield
    finally:
        fcntl.lockf(file, fcntl.LOCK_UN)
