"""Waiting for a condition, with a generous limit."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
LIMIT = 60.0


class NeverHappenedError(AssertionError):
    """A condition did not come true in time."""


def wait_until(
    observe: Callable[[], T], holds: Callable[[T], object], what: str, limit: float = LIMIT
) -> T:
    """The first value of `observe` that `holds`, looked at often for at most `limit` seconds.

    Raises NeverHappenedError, which says `what` was waited for.
    """
    give_up = time.monotonic() + limit
    while True:
        value = observe()
        if holds(value):
            return value
        if time.monotonic() > give_up:
            raise NeverHappenedError(f"waited {limit:g} s for {what}; the last value was {value!r}")
        time.sleep(0.01)


def wait_for(condition: Callable[[], object], what: str, limit: float = LIMIT) -> None:
    """Waits until `condition` is true, at most `limit` seconds. Raises NeverHappenedError."""
    wait_until(condition, bool, what, limit)


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that nobody listens on at the moment.

    It is below those that the kernel gives to outgoing connections, so that none takes it.
    """
    while True:
        port = random.randrange(10_000, 32_000)  # noqa: S311
        with socket.socket() as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
