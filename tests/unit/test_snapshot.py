"""The snapshot: whose containers are whose, what changes, and how long it can be answered from."""

from __future__ import annotations

import pytest

from container_healthcheck.model.container import Container
from container_healthcheck.model.snapshot import NOT_YET, Snapshot, snapshot_of
from container_healthcheck.model.verdict import Code, Fault
from tests.unit.containers import PATTERN, container

REFUSED = Fault(Code.ENGINE_UNREACHABLE, "cannot connect")


def test_containers_are_found_by_app_newest_first() -> None:
    old = container("bk_iam-1", created=1)
    new = container("bk_iam-2", created=2)
    other = container("bk_iam_app-1")

    snapshot = snapshot_of([old, other, new], PATTERN, confirmed_at=0)

    assert snapshot.by_app["bk_iam"] == (new, old)
    assert snapshot.by_app["bk_iam_app"] == (other,)
    assert snapshot.apps == {"bk_iam", "bk_iam_app"}


def test_live_containers_are_given_by_app() -> None:
    containers = [container("a-1"), container("a-2", state="exited"), container("a-3")]

    snapshot = snapshot_of(containers, PATTERN, confirmed_at=0)

    assert snapshot.live("a") == {"id of a-1", "id of a-3"}
    assert snapshot.live("b") == frozenset()


@pytest.mark.parametrize(
    ("news", "affected"),
    [
        ({}, set()),
        ({"id of a-1": container("a-1")}, set()),
        ({"id of a-1": container("a-1", state="exited")}, {"a", "a-1"}),
        ({"id of a-1": None}, {"a", "a-1"}),
        ({"nobody": None}, set()),
        ({"id of c-1": container("c-1")}, {"c", "c-1"}),
        ({"id of a-1": container("b-7", id="id of a-1")}, {"a", "a-1", "b", "b-7"}),
    ],
)
def test_only_what_changes_is_affected(
    news: dict[str, Container | None], affected: set[str]
) -> None:
    before = snapshot_of([container("a-1"), container("b-1")], PATTERN, confirmed_at=0)

    after, found = before.updated(news, PATTERN)

    assert found == affected
    left = {each.id: each for each in before.containers.values()} | news
    drawn = snapshot_of([each for each in left.values() if each], PATTERN, confirmed_at=0)
    assert after == drawn
    assert (after is before) == (not affected)


@pytest.mark.parametrize(
    ("confirmed_at", "fault", "now", "code"),
    [
        (None, None, 0, NOT_YET.code),
        (None, REFUSED, 0, Code.ENGINE_UNREACHABLE),
        (100, None, 114.9, None),
        (100, REFUSED, 114.9, None),
        (100, None, 115, Code.ENGINE_FAULTY),
        (100, REFUSED, 115, Code.ENGINE_UNREACHABLE),
    ],
)
def test_a_snapshot_is_answered_from_until_it_is_stale(
    confirmed_at: float | None, fault: Fault | None, now: float, code: Code | None
) -> None:
    found = Snapshot(confirmed_at=confirmed_at, fault=fault).fault_at(now, 15)

    assert (found and found.code) == code


def test_a_stale_snapshot_says_since_when() -> None:
    found = Snapshot(confirmed_at=0, fault=REFUSED).fault_at(99, 15)

    assert found is not None
    assert found.text == "cannot connect (no full list of containers for over 15 s)"
