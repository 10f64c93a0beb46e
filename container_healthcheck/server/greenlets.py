"""What the observer needs of gevent: a limit of time, greenlets, and threads for disks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache

import gevent
from gevent.threadpool import ThreadPool

# A disk that hangs holds a thread. Three uses of one: drain marks, saving, loading.
_MOST_THREADS = 3


def bounded(seconds: float) -> AbstractContextManager[object]:
    """Raises TimeoutError inside its block after so many seconds, whatever the block waits for."""
    return gevent.Timeout(seconds, TimeoutError(f"not done within {seconds:g} s"))


def spawn(work: Callable[[], None]) -> None:
    """Runs it in a greenlet of its own: much cheaper than a thread, also than a patched one."""
    gevent.spawn(work)


def offload(work: Callable[[], None]) -> None:
    """Runs work that may block in a thread, and returns, or raises, when it is done."""
    # gevent would print what an error of its threads is.
    error = _threads().apply(_error_of, (work,))
    if error is not None:
        raise error


def _error_of(work: Callable[[], None]) -> Exception | None:
    try:
        work()
    except Exception as error:
        return error
    return None


@cache
def _threads() -> ThreadPool:
    return ThreadPool(_MOST_THREADS)
