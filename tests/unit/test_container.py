"""Containers out of the engine's list."""

from __future__ import annotations

from typing import Any

import pytest

from container_healthcheck.model.container import (
    MalformedContainerError,
    from_listing,
    newest_first,
)
from tests.unit.containers import container, entry


def test_an_entry_becomes_a_container() -> None:
    assert from_listing(entry()) == container(id="037dbe46cd" + "0" * 54)


@pytest.mark.parametrize(
    ("names", "name"),
    [
        (["/bk_iam-1"], "bk_iam-1"),
        (["/other/alias", "/bk_iam-1"], "bk_iam-1"),
        (["/bk_iam-1", "/other/alias"], "bk_iam-1"),
    ],
)
def test_the_name_is_its_own_and_no_link_alias(names: list[str], name: str) -> None:
    found = from_listing(entry(Names=names))

    assert found is not None
    assert found.name == name


@pytest.mark.parametrize("names", [None, [], ["/other/alias"], ["/"], ["no-slash"]])
def test_a_container_without_a_name_is_passed_over(names: list[str] | None) -> None:
    assert from_listing(entry(Names=names)) is None


def test_a_missing_list_of_names_is_passed_over() -> None:
    bare = entry()
    del bare["Names"]

    assert from_listing(bare) is None


@pytest.mark.parametrize(
    ("fields", "health", "is_live"),
    [
        ({}, "", True),
        ({"Status": "Up 2 minutes (healthy)"}, "healthy", True),
        ({"Status": "Up 2 minutes (unhealthy)"}, "unhealthy", False),
        ({"Status": "Up 2 seconds (health: starting)"}, "starting", False),
        # From API 1.52 on the list has a field of its own.
        ({"Health": {"Status": "healthy", "FailingStreak": 0}}, "healthy", True),
        ({"Health": {"Status": "unhealthy", "FailingStreak": 3}}, "unhealthy", False),
        ({"Health": {"Status": "starting"}}, "starting", False),
        ({"Health": {"Status": "none"}}, "", True),
        ({"Health": None}, "", True),
        ({"State": "paused", "Status": "Up 2 minutes (Paused)"}, "", False),
        ({"State": "restarting", "Status": "Restarting (1) 3 seconds ago"}, "", False),
        ({"State": "created", "Status": "Created"}, "", False),
        ({"State": "dead", "Status": "Dead"}, "", False),
        ({"State": "removing", "Status": "Removal In Progress"}, "", False),
        ({"State": "exited", "Status": "Exited (137) 5 minutes ago"}, "", False),
        ({"State": None}, "", False),
    ],
)
def test_health_and_life(fields: dict[str, Any], health: str, is_live: bool) -> None:
    found = from_listing(entry(**fields))

    assert found is not None
    assert found.health == health
    assert found.is_live is is_live


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"Names": ["/a"]},
        {**entry(), "Created": "yesterday"},
        {**entry(), "Names": [7]},
        {**entry(), "Health": "healthy"},
        {**entry(), "Ports": 7},
    ],
)
def test_what_is_not_a_container_is_refused(broken: dict[str, Any]) -> None:
    if broken == {}:
        assert from_listing(broken) is None
        return
    with pytest.raises(MalformedContainerError, match="not a container"):
        from_listing(broken)


def test_an_entry_that_is_no_object_is_refused() -> None:
    with pytest.raises(MalformedContainerError):
        from_listing(["Id"])  # type: ignore[arg-type]


def test_the_newest_comes_first() -> None:
    old = container("a-1", created=1)
    new = container("a-2", created=2)
    twin = container("a-3", created=2)

    assert newest_first([old, twin, new]) == (twin, new, old)
