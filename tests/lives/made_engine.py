"""An engine made of JSON: its list lags, its events get lost, doubled and out of order."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from container_healthcheck.model.container import Container, from_listing
from container_healthcheck.model.verdict import Code, Fault
from container_healthcheck.observers.engine import EngineError, Event
from tests.unit.containers import entry

_STATUS = {
    "running": "Up 5 days",
    "exited": "Exited (1) 5 days ago",
    "paused": "Up 5 days (Paused)",
}


class MadeEngine:
    """`truth` is what there is, `listed` what its list shows, `queued` the events on their way."""

    def __init__(self) -> None:
        self.truth: dict[str, dict[str, Any]] = {}
        self.listed: dict[str, dict[str, Any]] = {}
        self.queued: list[Event] = []
        self.now = 1_800_000_000 * 10**9
        self.made = 0
        self.failing_lists = 0
        self.meanwhile: Callable[[], None] | None = None

    def make(self, name: str) -> str:
        """Creates and starts a container; returns its id."""
        self.made += 1
        container_id = f"{self.made:064x}"
        self.truth[container_id] = entry(name, Id=container_id, Created=1_700_000_000 + self.made)
        self.tell("create", container_id)
        self.tell("start", container_id)
        return container_id

    def set(self, container_id: str, state: str, *actions: str, health: str = "") -> None:
        """Brings a container into a state, and tells of it."""
        status = _STATUS[state] + (f" ({health})" if health else "")
        self.truth[container_id] = {**self.truth[container_id], "State": state, "Status": status}
        for action in actions:
            self.tell(action, container_id)

    def rename(self, container_id: str, name: str) -> None:
        """Gives a container another name."""
        self.truth[container_id] = {**self.truth[container_id], "Names": [f"/{name}"]}
        self.tell("rename", container_id, name=name)

    def remove(self, container_id: str) -> None:
        """Ends and removes a container."""
        del self.truth[container_id]
        self.tell("die", container_id, exitCode="137")
        self.tell("destroy", container_id)

    def tell(self, action: str, container_id: str, **attributes: str) -> None:
        """Puts an event on its way."""
        self.now += 1_000_003
        self.queued.append(Event(container_id, action, self.now, attributes))

    def catch_up(self) -> None:
        """Lets the list show the truth."""
        self.listed = copy.deepcopy(self.truth)

    def in_truth(self) -> list[Container]:
        """The containers that there are."""
        return _containers(self.truth, ())

    # What a subscription needs of an engine's client.

    def containers(self, *, ids: Sequence[str] = ()) -> list[Container]:
        """What the list shows, after what happens meanwhile."""
        if self.failing_lists:
            self.failing_lists -= 1
            raise EngineError(Fault(Code.ENGINE_FAULTY, "no list"))
        shown = _containers(self.listed, ids)
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return shown

    def subscribe(self, since: str | None = None) -> MadeEngine:  # noqa: ARG002
        """The test hands over the events itself."""
        return self

    def __iter__(self) -> Iterator[Event]:
        return iter(())

    def close(self) -> None:
        """Nothing to close."""


def _containers(entries: Mapping[str, Mapping[str, Any]], ids: Sequence[str]) -> list[Container]:
    found = (from_listing(each) for key, each in entries.items() if not ids or key in ids)
    return [each for each in found if each is not None]
