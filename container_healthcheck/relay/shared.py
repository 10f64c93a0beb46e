"""What all workers read without asking: who leads, whether it is alive, and what it has published.

A few numbers in memory that gunicorn's master maps before it forks. Only the leader writes them
(and the master the number of reloads), each number in one go, so no lock is needed.

A position is the number of a message, over all leaders: the term of its leader and the place of the
message in that term. Positions never go back, so a worker that has applied the latest one has
applied everything.
"""

from __future__ import annotations

import mmap
import secrets
import time

_TERM, _HEARTBEAT, _RESIGNED, _RELOADS, _POSITIONS = range(5)
# The latest position of each of so many terms: a leader of an earlier term that has been frozen
# writes into a place that is not read any more.
_TERMS = 64
_NUMBERS = _POSITIONS + _TERMS
_TERM_BITS = 32


def first_position(term: int) -> int:
    """The position in which a term begins."""
    return term << _TERM_BITS


class SharedMemory:
    """The numbers of one group of workers.

    `name` is what the addresses of this group begin with.
    """

    def __init__(self) -> None:
        self.name = f"container-healthcheck-{secrets.token_hex(8)}"
        self._numbers = memoryview(mmap.mmap(-1, _NUMBERS * 8)).cast("Q")

    @property
    def term(self) -> int:
        """The number of the present leader's term; 0 before the first."""
        return self._numbers[_TERM]

    @property
    def position(self) -> int:
        """The latest position that the present leader has published."""
        return self._numbers[_POSITIONS + self.term % _TERMS]

    @property
    def silence(self) -> float:
        """How long ago the leader last showed that it is alive, in seconds."""
        return (time.monotonic_ns() - self._numbers[_HEARTBEAT]) / 1e9

    @property
    def is_resigned(self) -> bool:
        """True when the present leader would hand over to another worker."""
        return self._numbers[_RESIGNED] == self.term

    def begin(self, term: int) -> None:
        """Makes this the present term; for its leader."""
        self._numbers[_POSITIONS + term % _TERMS] = first_position(term)
        self.beat()
        self._numbers[_TERM] = term

    def beat(self) -> None:
        """Shows that the leader is alive."""
        self._numbers[_HEARTBEAT] = time.monotonic_ns()

    def resign(self, term: int) -> None:
        """Says that the leader of this term would hand over."""
        self._numbers[_RESIGNED] = term

    def announce(self, term: int, position: int) -> None:
        """Says what the leader of this term publishes now."""
        self._numbers[_POSITIONS + term % _TERMS] = position

    @property
    def reloads(self) -> int:
        """How often the master has replaced all workers."""
        return self._numbers[_RELOADS]

    def count_reload(self) -> None:
        """Says that all workers are about to be replaced; for the master."""
        self._numbers[_RELOADS] += 1
