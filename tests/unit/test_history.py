"""The history: since when, how often, and the latest changes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from container_healthcheck.model.counters import MOST
from container_healthcheck.model.history import KEPT, Change, History, Known


def change(app_code: str = "a", old: int | None = 0, new: int = 13, at: float = 5.5) -> Change:
    return Change(at, app_code, old, new, f"{old} -> {new}")


def test_it_begins_with_the_codes_that_were_found() -> None:
    history = History().after({"a": 0, "b": 13}, [])

    assert history.has_begun and not History().has_begun
    assert history.known == {"a": Known(0, None), "b": Known(13, None)}
    assert history.changes == ()
    # A host without apps has begun, too.
    assert History().after({}, []).has_begun
    assert not History().after(None, [change()]).has_begun


def test_a_change_says_since_when() -> None:
    history = History().after({"a": 0}, []).after(None, [change(), change("b", None, 0, 6.5)])

    assert history.since("a", 13) == 5.5
    assert history.since("a", 0) is None
    assert history.since("b", 0) == 6.5
    assert history.since("c", 0) is None
    assert [each.app_code for each in history.changes] == ["b", "a"]
    assert history.counts == {"a": 1, "b": 1}


def test_an_app_that_has_gone_is_known_no_more_but_its_changes_are() -> None:
    history = History().after(None, [change(), change(old=13, new=12)])

    assert history.known == {}
    assert history.counts == {"a": 2}
    assert len(history.changes) == 2


def test_a_restart_leaves_since_when() -> None:
    history = History().after(None, [change(new=0, old=13), change(old=0, new=0, at=9.5)])

    assert history.since("a", 0) == 5.5
    assert history.counts == {"a": 2}


def test_an_older_history_does_not_change() -> None:
    history = History().after({"a": 0}, [])
    history.after(None, [change()])

    assert history == History().after({"a": 0}, [])


def test_apps_that_come_and_go_do_not_fill_the_memory() -> None:
    history = History().after(None, [change(f"job{number}", 0, 12) for number in range(MOST + 9)])

    assert len(history.counts) == MOST
    assert "job0" not in history.counts
    assert len(history.changes) == KEPT
    assert history.changes[0].app_code == f"job{MOST + 8}"


def test_what_is_written_is_read_again() -> None:
    history = History().after({"a": 0, "b": 13}, [change(), change("c", None, 0)])

    again = History.from_json(json.loads(json.dumps(history.to_json())))

    assert again == history
    assert not again.before_start().has_begun
    assert again.before_start().known == history.known


@pytest.mark.parametrize(
    "fields",
    [
        {"known": None},
        {"known": {"a": []}},
        {"known": {"a": [99, None]}},
        {"known": {"a": [0, -1]}},
        {"known": {"a": [0, float("nan")]}},
        {"known": {"a": [0, "soon"]}},
        {"changes": None},
        {"changes": [[1, "a", 0]]},
        {"changes": [[1, "a", 99, 0, ""]]},
        {"changes": [[float("inf"), "a", 0, 0, ""]]},
        {"counts": {"a": True}},
        {"counts": {"a": 1.5}},
        {"counts": []},
    ],
)
def test_anything_else_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        History.from_json({**History().to_json(), **fields})


@pytest.mark.parametrize("value", [None, [], {}, "x", 7])
def test_what_is_not_a_history_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="not a history"):
        History.from_json(value)
