"""What a worker tries with the files that all workers share, and tries again if it must."""

from __future__ import annotations

import logging
from collections.abc import Callable

from container_healthcheck.observers.file_lock import FileBusyError

log = logging.getLogger(__name__)


class Attempts:
    """Whoever calls holds the monitor's lock, and tries again at the next look."""

    def __init__(self) -> None:
        self._failed: set[str] = set()

    def attempt(self, name: str, act: Callable[[], frozenset[str] | None]) -> frozenset[str]:
        """What `act` returns, or nothing when the files do not let it.

        That is said once, until all that could not be done, by its name, is done.
        """
        try:
            touched = act()
        except (FileBusyError, OSError) as error:
            if not self._failed:
                log.warning("the workers cannot tell each other what they see: %r", error)
            self._failed.add(name)
            return frozenset()
        self._failed.discard(name)
        return touched or frozenset()
