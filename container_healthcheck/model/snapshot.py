"""The picture of the host's containers, as the engine last confirmed it. Pure: no I/O."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from container_healthcheck.model.container import Container, newest_first
from container_healthcheck.model.names import NamePattern
from container_healthcheck.model.verdict import Code, Fault

NOT_YET = Fault(Code.ENGINE_FAULTY, "the containers have not been listed yet: ask again soon")


@dataclass(frozen=True, slots=True)
class Picture:
    """All containers at one moment, and how far to believe in them.

    `confirmed_at` is when the engine last listed all of them, on the caller's monotonic clock in
    seconds, or None when it never did; `fault` is the present trouble with the engine, or None.
    `by_app` holds the containers of every app code that has any, newest first; `apps` are the codes
    worth listing.
    """

    containers: Mapping[str, Container] = field(default_factory=dict)
    by_app: Mapping[str, Sequence[Container]] = field(default_factory=dict)
    apps: Sequence[str] = ()
    confirmed_at: float | None = None
    fault: Fault | None = None

    def fault_at(self, now: float, stale_after: float) -> Fault | None:
        """Why this picture must not be answered from at `now`, or None when it may be."""
        if self.confirmed_at is None:
            return self.fault or NOT_YET
        age = now - self.confirmed_at
        if age < stale_after:
            return None
        fault = self.fault or Fault(Code.ENGINE_FAULTY, "the engine has stopped answering")
        return Fault(fault.code, f"{fault.text} (no full list of containers for {stale_after:g} s)")

    def live_containers(self) -> dict[str, frozenset[str]]:
        """The ids of the live containers of each listed app that has any."""
        live = {
            app_code: frozenset(each.id for each in self.by_app[app_code] if each.is_live)
            for app_code in self.apps
        }
        return {app_code: ids for app_code, ids in live.items() if ids}


def draw(
    containers: Iterable[Container],
    pattern: NamePattern,
    *,
    confirmed_at: float | None,
    fault: Fault | None = None,
) -> Picture:
    """The picture that these containers make."""
    by_id = {container.id: container for container in containers}
    by_app: defaultdict[str, list[Container]] = defaultdict(list)
    apps: set[str] = set()
    for container in newest_first(by_id.values()):
        for app_code in pattern.app_codes(container.name):
            by_app[app_code].append(container)
        apps.update(pattern.likely_app_codes(container.name))
    return Picture(by_id, dict(by_app), tuple(sorted(apps)), confirmed_at, fault)
