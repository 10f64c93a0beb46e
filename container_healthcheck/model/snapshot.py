"""The snapshot of the host's containers, as the engine last confirmed it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from container_healthcheck.model.container import Container, newest_first
from container_healthcheck.model.names import NamePattern
from container_healthcheck.model.verdict import Code, Fault

NOT_YET = Fault(Code.ENGINE_FAULTY, "the containers have not been listed yet: ask again soon")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All containers at one moment, and how far they can be relied on.

    `confirmed_at` is when the engine last listed all of them, on the caller's monotonic clock in
    seconds, or None when it never did; `fault` is the present trouble with the engine, or None.
    `by_app` holds the containers of every app code that has any, newest first; `apps` are the codes
    worth listing.
    """

    containers: Mapping[str, Container] = field(default_factory=dict)
    by_app: Mapping[str, Sequence[Container]] = field(default_factory=dict)
    apps: frozenset[str] = frozenset()
    confirmed_at: float | None = None
    fault: Fault | None = None

    def fault_at(self, now: float, stale_after: float) -> Fault | None:
        """Why this snapshot must not be answered from at `now`, or None when it may be."""
        if self.confirmed_at is None:
            return self.fault or NOT_YET
        age = now - self.confirmed_at
        if age < stale_after:
            return None
        fault = self.fault or Fault(Code.ENGINE_FAULTY, "the engine has stopped answering")
        return Fault(
            fault.code, f"{fault.text} (no full list of containers for over {stale_after:g} s)"
        )

    def live(self, app_code: str) -> frozenset[str]:
        """The ids of the app's live containers."""
        return frozenset(each.id for each in self.by_app.get(app_code, ()) if each.is_live)

    def updated(
        self, news: Mapping[str, Container | None], pattern: NamePattern
    ) -> tuple[Snapshot, frozenset[str]]:
        """The snapshot in which these containers (None: gone) are as given, by their ids.

        Also the app codes that are affected. What stays is not looked at: this costs the same on a
        small host and on a large one, but for two copies of references.
        """
        changes = {each: new for each, new in news.items() if self.containers.get(each) != new}
        if not changes:
            return self, frozenset()
        # What stays keeps its place: a mapping with gaps is copied far more slowly.
        containers = dict(self.containers)
        arrivals: defaultdict[str, list[Container]] = defaultdict(list)
        affected: set[str] = set()
        for each, new in changes.items():
            if (old := containers.get(each)) is not None:
                affected.update(pattern.app_codes(old.name))
            if new is None:
                del containers[each]
            else:
                containers[each] = new
                for app_code in pattern.app_codes(new.name):
                    arrivals[app_code].append(new)
        affected.update(arrivals)
        by_app = dict(self.by_app)
        relisted: set[str] = set()
        for app_code in affected:
            kept = [each for each in by_app.get(app_code, ()) if each.id not in changes]
            if members := newest_first([*kept, *arrivals[app_code]]):
                by_app[app_code] = members
            else:
                by_app.pop(app_code, None)
            is_listed = any(app_code in pattern.likely_app_codes(each.name) for each in members)
            if is_listed != (app_code in self.apps):
                relisted.add(app_code)
        apps = self.apps ^ relisted if relisted else self.apps
        changed = replace(self, containers=containers, by_app=by_app, apps=apps)
        return changed, frozenset(affected)

    def differences(self, listed: Iterable[Container]) -> dict[str, Container | None]:
        """What makes this a snapshot of exactly the `listed` containers: see `updated`."""
        found = {each.id: each for each in listed}
        gone = dict.fromkeys(self.containers.keys() - found.keys())
        new = {each: value for each, value in found.items() if self.containers.get(each) != value}
        return {**gone, **new}


def snapshot_of(
    containers: Iterable[Container],
    pattern: NamePattern,
    *,
    confirmed_at: float | None,
    fault: Fault | None = None,
) -> Snapshot:
    """The snapshot that these containers make."""
    empty = Snapshot(confirmed_at=confirmed_at, fault=fault)
    return empty.updated({each.id: each for each in containers}, pattern)[0]
