"""Which apps have restarted between two snapshots."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from container_healthcheck.model.container import Container
from container_healthcheck.model.restarts import restarted
from container_healthcheck.model.snapshot import Snapshot, snapshot_of
from tests.unit.containers import PATTERN, container

OLD, NEW = container("a-1"), container("a-2")
DEAD = container("a-1", state="exited")
UNHEALTHY = container("a-1", health="unhealthy")
OTHER = container("b-1")


def between(
    before: Collection[Container], after: Collection[Container], *started: Container
) -> frozenset[str]:
    old = snapshot_of(before, PATTERN, confirmed_at=0)
    new = snapshot_of(after, PATTERN, confirmed_at=1)
    affected = {*old.by_app, *new.by_app}
    return restarted(old, new, affected, {each.id for each in started})


@pytest.mark.parametrize(
    ("before", "after", "started", "found"),
    [
        pytest.param([OLD], [OLD], [], set(), id="nothing happened"),
        pytest.param([OLD], [DEAD], [], set(), id="it died"),
        pytest.param([DEAD], [DEAD], [], set(), id="it is dead"),
        pytest.param([DEAD], [OLD], [], {"a"}, id="it died and is running again"),
        pytest.param([UNHEALTHY], [OLD], [], {"a"}, id="it is healthy again"),
        pytest.param([OLD], [OLD, OTHER], [], {"b"}, id="an app that appears"),
        pytest.param([OLD], [OLD], [OLD], {"a"}, id="too quick for the list to show it"),
        pytest.param([DEAD], [DEAD], [DEAD], set(), id="started and dead again"),
        pytest.param([OLD], [OLD, NEW], [NEW], set(), id="the new one of a redeployment"),
        pytest.param([OLD, NEW], [NEW], [], set(), id="the end of a redeployment"),
        pytest.param([OLD], [NEW], [NEW], {"a"}, id="replaced at once"),
        pytest.param([OLD], [NEW], [], {"a"}, id="replaced at once, the start was missed"),
        pytest.param([OLD, NEW], [OLD, NEW], [OLD], set(), id="one of two restarted"),
        pytest.param([OLD, NEW], [OLD, NEW], [OLD, NEW], {"a"}, id="both restarted"),
        pytest.param([OLD], [], [OLD], set(), id="started and gone"),
    ],
)
def test_an_app_has_restarted_when_no_container_was_live_all_the_time(
    before: list[Container], after: list[Container], started: list[Container], found: set[str]
) -> None:
    assert between(before, after, *started) == found


def test_apps_found_at_the_start_have_not_restarted() -> None:
    found = snapshot_of([OLD], PATTERN, confirmed_at=0)

    assert restarted(Snapshot(), found, {"a"}, {OLD.id}) == frozenset()


def test_only_affected_apps_are_looked_at() -> None:
    old = snapshot_of([DEAD], PATTERN, confirmed_at=0)
    new = snapshot_of([OLD, OTHER], PATTERN, confirmed_at=0)

    assert restarted(old, new, {"b"}, ()) == {"b"}
