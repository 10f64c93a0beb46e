"""The picture: whose containers are whose, and how long it is believed."""

from __future__ import annotations

import pytest

from container_healthcheck.model.snapshot import NOT_YET, Picture, draw
from container_healthcheck.model.verdict import Code, Fault
from tests.unit.containers import PATTERN, container

REFUSED = Fault(Code.ENGINE_UNREACHABLE, "cannot connect")


def test_containers_are_found_by_app_newest_first() -> None:
    old = container("bk_iam-1", created=1)
    new = container("bk_iam-2", created=2)
    other = container("bk_iam_app-1")

    picture = draw([old, other, new], PATTERN, confirmed_at=0)

    assert picture.by_app["bk_iam"] == [new, old]
    assert picture.by_app["bk_iam_app"] == [other]
    assert picture.apps == ("bk_iam", "bk_iam_app")


def test_live_containers_are_given_by_app() -> None:
    containers = [
        container("a-1"),
        container("a-2", state="exited"),
        container("a-3"),
        container("b-1", state="paused"),
    ]

    picture = draw(containers, PATTERN, confirmed_at=0)

    assert picture.live_containers() == {"a": frozenset({"id of a-1", "id of a-3"})}


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
def test_a_picture_is_believed_until_it_is_stale(
    confirmed_at: float | None, fault: Fault | None, now: float, code: Code | None
) -> None:
    found = Picture(confirmed_at=confirmed_at, fault=fault).fault_at(now, 15)

    assert (found and found.code) == code


def test_a_stale_picture_says_for_how_long_it_is_believed() -> None:
    found = Picture(confirmed_at=0, fault=REFUSED).fault_at(99, 15)

    assert found is not None
    assert found.text == "cannot connect (no full list of containers for 15 s)"
