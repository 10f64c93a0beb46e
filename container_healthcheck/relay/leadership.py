"""Leadership: at most one worker leads, and another one soon does when the leader ends or freezes.

Each leader has a term, with a number and an address of its own. To lead is to listen on the address
of the next term: only one process can, and the kernel frees the address when that process ends.
Nothing a frozen leader does reaches anybody once the next term has begun: followers listen to the
term that the shared memory names, and the old leader finds its own term over before it publishes.
"""

from __future__ import annotations

import errno
import logging
import socket
import time

from container_healthcheck.relay import address
from container_healthcheck.relay.shared import SharedMemory

log = logging.getLogger(__name__)

LEASE = 4.0
"""A leader that has not shown for so many seconds that it is alive has lost its term."""

# How long a worker that may know less than another leaves that one the first chance, in seconds.
PRECEDENCE = 0.5


class Term:
    """The time for which this worker leads."""

    def __init__(self, number: int, listener: socket.socket, shared: SharedMemory) -> None:
        self.number = number
        self.listener = listener
        self._shared = shared

    @property
    def is_over(self) -> bool:
        """True once another worker leads."""
        return self._shared.term != self.number


class Leadership:
    """This worker's way to the leader, or to a term of its own."""

    def __init__(self, shared: SharedMemory) -> None:
        self._shared = shared
        self._vacant_since: float | None = None
        self._skipped = 0
        self._reported: set[str] = set()

    def name(self, term: int) -> str:
        """The address of a term."""
        return f"{self._shared.name}-{term}"

    def connect(self) -> socket.socket | None:
        """A connection to the leader, or None when there is none that is alive."""
        if not self._shared.term or self._shared.silence >= LEASE:
            return None
        try:
            connection = address.connect(self.name(self._shared.term), LEASE)
        except OSError as error:
            if not isinstance(error, ConnectionRefusedError):
                self._report(f"the leader cannot be reached: {error}; trying again")
            return None
        self._vacant_since = None
        self._reported.clear()
        return connection

    def stand(self, position: int) -> Term | None:
        """Begins a term of this worker's own, or returns None where another has or should have one.

        `position` is what this worker knows: one that knows less than was published, or nothing
        yet, leaves the others the first chance.
        """
        now = time.monotonic()
        if self._vacant_since is None:
            self._vacant_since = now
        vacant_for = now - self._vacant_since
        present = self._shared.term
        if present and position < self._shared.position and vacant_for < PRECEDENCE:
            return None
        number = present + 1 + self._skipped
        try:
            listener = address.listen(self.name(number))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                self._report(f"no worker can lead: {error}; trying again")
            elif vacant_for > 2 * PRECEDENCE:
                # Whoever listens there does not lead: it is frozen, or a stranger.
                log.warning("the address of term %d is taken; going on with the next", number)
                self._skipped += 1
                self._vacant_since = now
            return None
        if self._shared.term >= number:
            listener.close()
            return None
        self._vacant_since, self._skipped = None, 0
        self._reported.clear()
        self._shared.begin(number)
        return Term(number, listener, self._shared)

    def _report(self, problem: str) -> None:
        # A worker tries many times a second.
        if problem not in self._reported:
            log.warning("%s", problem)
        self._reported.add(problem)
