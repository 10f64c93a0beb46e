"""Apps that have come back, held back until all workers know of it.

No worker may answer such an app healthy before it was asked, also while the ledger does not let
this one tell the others. Whoever calls holds the monitor's lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from container_healthcheck.model.records import Record, Returned
from container_healthcheck.model.returns import Return, Returns
from container_healthcheck.model.serving import UNASKED
from container_healthcheck.observers.replica import Replica, since_boot


class HeldBack:
    """The returns that this worker has seen, and could not tell yet."""

    def __init__(self, replica: Replica, returns: Returns) -> None:
        self._replica = replica
        self._returns = returns
        self._untold: dict[str, Return] = {}

    def add(self, returns: Iterable[Return]) -> None:
        """These apps have come back."""
        self._untold.update({each.app_code: each for each in returns})

    @property
    def apps(self) -> frozenset[str]:
        """The apps that are held back here."""
        return frozenset(self._untold)

    @property
    def failing(self) -> Mapping[str, str]:
        """What was seen of each app that must not be called healthy, these among them."""
        failing = self._replica.serving.failing
        return {**failing, **dict.fromkeys(self._untold, UNASKED)} if self._untold else failing

    def tell(self) -> frozenset[str]:
        """Tells all workers. Returns and raises what Replica.tell does."""
        touched = self._replica.tell(self._news)
        self._untold = {}
        return touched

    def _news(self) -> Iterable[Record]:
        # Made under the ledger's lock, when all that others have told is read.
        for each in self._untold.values():
            if self._returns.is_news(each, self._replica.serving):
                yield Returned(each.app_code, each.cause, since_boot())
