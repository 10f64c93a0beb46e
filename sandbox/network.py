"""A network namespace of our own: a loopback on which any address and port is free."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Iterator

_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)


class Network:
    """A network namespace with nothing but `lo`; a context manager. It ends with its last user."""

    def __init__(self) -> None:
        with _kept_namespace():
            _check(_LIBC.unshare(_CLONE_NEWNET))
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            self._namespace = _current()

    def __enter__(self) -> Network:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._namespace)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """In it: this thread's new sockets, new processes and new threads are in the namespace."""
        with _kept_namespace():
            _check(_LIBC.setns(self._namespace, _CLONE_NEWNET))
            yield


@contextlib.contextmanager
def _kept_namespace() -> Iterator[None]:
    home = _current()
    try:
        yield
    finally:
        _check(_LIBC.setns(home, _CLONE_NEWNET))
        os.close(home)


def _current() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY)


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
