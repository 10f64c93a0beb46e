"""Which apps have restarted: none of their containers was live before and all the time since."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from container_healthcheck.model.snapshot import Snapshot


def restarted(
    old: Snapshot, new: Snapshot, affected: Iterable[str], started: Collection[str]
) -> frozenset[str]:
    """Those of the `affected` apps that have restarted between two snapshots.

    `started` are the ids of the containers for which the engine has announced a start in between: a
    restart can be too quick for the list to show it. Apps of the first confirmed snapshot have not
    restarted: they were found running.
    """
    if old.confirmed_at is None:
        return frozenset()
    found = set()
    for app_code in affected:
        live = new.live(app_code) if app_code in new.apps else frozenset()
        before = old.live(app_code) if app_code in old.apps else frozenset()
        if live and not (before & live).difference(started):
            found.add(app_code)
    return frozenset(found)
