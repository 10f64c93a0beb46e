"""How to treat an engine that fails: how long to pause, and how long to wait for an answer."""

from __future__ import annotations

from container_healthcheck.model.verdict import Code, Fault

# How long to pause before the engine is asked again, in seconds.
SHORTEST_PAUSE, LONGEST_PAUSE = 0.1, 1.0
# While the engine hangs, questions are held open for this long at most, in seconds: each one that
# is given up leaves an entry in the frozen engine's queue of connections, and one that is held is
# answered at once when the engine continues.
LONGEST_PATIENCE = 30.0
_MOST_FAILURES = 10


class Retry:
    """Counts failures in a row. `docker_timeout` is in seconds."""

    def __init__(self, docker_timeout: float) -> None:
        self._docker_timeout = docker_timeout
        self._failures = 0
        self._is_hung = False

    def failed(self, fault: Fault | None = None) -> None:
        """The engine has failed once more."""
        self._failures = min(self._failures + 1, _MOST_FAILURES)
        self._is_hung = fault is not None and fault.code is Code.ENGINE_FAULTY

    def succeeded(self) -> None:
        """The engine has answered."""
        self._failures, self._is_hung = 0, False

    @property
    def pause(self) -> float:
        """How long to pause now, in seconds."""
        pause: float = SHORTEST_PAUSE * 2**self._failures
        return min(pause, LONGEST_PAUSE)

    @property
    def patience(self) -> float:
        """How long the next question may take, in seconds."""
        if not self._is_hung:
            return self._docker_timeout
        patience: float = self._docker_timeout * 2**self._failures
        return max(self._docker_timeout, min(patience, LONGEST_PATIENCE))
