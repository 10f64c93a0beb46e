"""The containers of which the engine's list does not say yet what its events said."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from container_healthcheck.model.container import Container
from container_healthcheck.model.expectation import Expectation
from container_healthcheck.observers.engine import Event

# How soon a container is listed again when the list is behind its events, and for how long, in
# seconds. The time between two lists doubles.
FIRST_RELIST, LONGEST_RELIST, LAST_RELIST = 0.0125, 0.8, 15.0


@dataclass(frozen=True, slots=True)
class _Pending:
    """One container.

    Its last event came at `noted_at`; it is to be listed at `due_at`, `pause` seconds after the
    last time, and until `give_up`.
    """

    expectation: Expectation
    noted_at: float
    due_at: float
    pause: float
    give_up: float


class PendingContainers:
    """What to expect of each container until the list agrees. Times are on the caller's clock."""

    def __init__(self) -> None:
        self._pending: dict[str, _Pending] = {}

    @property
    def ids(self) -> frozenset[str]:
        """The containers that something is expected of."""
        return frozenset(self._pending)

    def note(self, event: Event, now: float) -> None:
        """Takes one more event: its container is to be listed at once."""
        known = self._pending.get(event.container_id)
        expectation = known.expectation if known else Expectation()
        expectation = expectation.after(event.action, event.attributes)
        self._pending[event.container_id] = _Pending(
            expectation, now, now, FIRST_RELIST, now + LAST_RELIST
        )

    def due(self, now: float) -> list[str]:
        """The ids of the containers that are to be listed, sorted."""
        return sorted(each for each, pending in self._pending.items() if pending.due_at <= now)

    def next_due(self, latest: float) -> float:
        """When a container is to be listed next; `latest` if none is before."""
        return min([latest, *(pending.due_at for pending in self._pending.values())])

    def bad_news(
        self, ids: Iterable[str], containers: Mapping[str, Container]
    ) -> dict[str, Container | None]:
        """What the events of these containers say against what is known of them."""
        known = {each: containers[each] for each in ids if each in containers}
        expected = {each: self._expected(container) for each, container in known.items()}
        return {each: new for each, new in expected.items() if new != known[each]}

    def corrected(self, listed: Iterable[Container]) -> list[Container]:
        """What a list shows, with the bad news that it does not show yet."""
        expected = (self._expected(each) for each in listed)
        return [each for each in expected if each is not None]

    def settle(
        self, ids: Iterable[str], listed: Iterable[Container], asked_at: float, now: float
    ) -> None:
        """Forgets what a list of these containers agrees with; the rest is to be listed again.

        A list that was asked for before a container's last event settles nothing of it.
        """
        by_id = {each.id: each for each in listed}
        for each in ids:
            pending = self._pending[each]
            if pending.noted_at > asked_at:
                continue
            if pending.expectation.is_met(by_id.get(each)) or now >= pending.give_up:
                del self._pending[each]
            else:
                pause = min(2 * pending.pause, LONGEST_RELIST)
                self._pending[each] = replace(pending, due_at=now + pending.pause, pause=pause)

    def _expected(self, container: Container) -> Container | None:
        pending = self._pending.get(container.id)
        return pending.expectation.applied_to(container) if pending else container
