"""Records and the history: what goes out as JSON comes in again."""

from __future__ import annotations

import json
from typing import Any

import pytest

from container_healthcheck.model.history import KEPT, History
from container_healthcheck.model.records import (
    Changed,
    Found,
    MalformedRecordError,
    Probed,
    Record,
    Restored,
    Returned,
    from_json,
    to_json,
)


@pytest.mark.parametrize(
    "record",
    [
        Returned("a", "id@1", 2.5),
        Probed("a", None, 3, 4.5),
        Probed("a", "502 \u2026", 3, 4.5),
        Changed(1.5, "a", None, 13, "why"),
        Found({"a": 0}),
        Restored(7, {"a": {}}, {"known": {}}),
    ],
)
def test_a_record_comes_back(record: Record) -> None:
    assert from_json(json.loads(json.dumps(to_json(record)))) == record


@pytest.mark.parametrize("value", [None, 1, [], ["nothing"], ["returned"], ["found", 1, 2], {}])
def test_what_is_no_record_is_refused(value: Any) -> None:
    with pytest.raises(MalformedRecordError):
        from_json(value)


def test_since_is_that_of_the_last_change() -> None:
    history = History()
    history.found(Found({"a": 0}))
    assert history.since("a", 0) is None
    history.changed(Changed(5.0, "a", 0, 13, ""))
    assert history.since("a", 13) == 5.0
    # An answer that the history has not heard of yet.
    assert history.since("a", 0) is None
    history.changed(Changed(6.0, "a", 13, 12, ""))
    assert "a" not in history.known


def test_the_latest_changes_are_kept_newest_first() -> None:
    history = History()
    for number in range(KEPT + 50):
        history.changed(Changed(float(number), "a", 0, 13, ""))

    assert len(history.changes) == KEPT
    assert history.changes[0].at == KEPT + 49


def test_the_history_comes_back() -> None:
    history = History()
    history.found(Found({"a": 0}))
    history.changed(Changed(5.0, "b", None, 13, "why"))
    again = History()

    again.restore(json.loads(json.dumps(history.to_json())))

    assert (again.known, again.changes) == (history.known, history.changes)
    assert again.counts == history.counts == {"b": 1}


def test_changes_are_counted_also_when_the_app_goes() -> None:
    history = History()
    for old, new in ((None, 0), (0, 12), (None, 13)):
        history.changed(Changed(5.0, "a", old, new, ""))

    assert history.counts == {"a": 3}


def test_a_history_of_before_there_were_counts_is_one() -> None:
    history = History()
    history.changed(Changed(5.0, "b", None, 13, "why"))
    kept = history.to_json()
    del kept["counts"]
    again = History()

    again.restore(kept)

    assert again.since("b", 13) == 5.0
    assert again.counts == {}


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        {"known": {"a": [99, 1]}, "changes": [], "has_begun": True},
        {"known": {"a": [0, float("nan")]}, "changes": [], "has_begun": True},
        {"known": {"a": [0, -1]}, "changes": [], "has_begun": True},
        {"known": {}, "changes": [["changed", 1, "a", 0]], "has_begun": True},
        {"known": {}, "changes": [["changed", "x", "a", 0, 13, ""]], "has_begun": True},
        {"known": [], "changes": [], "has_begun": True},
        {"known": {}, "changes": [], "has_begun": True, "counts": []},
        {"known": {}, "changes": [], "has_begun": True, "counts": {"a": -1}},
        {"known": {}, "changes": [], "has_begun": True, "counts": {"a": "1"}},
    ],
)
def test_a_history_that_cannot_be_used_changes_nothing(value: Any) -> None:
    history = History()
    history.changed(Changed(5.0, "b", None, 13, "why"))

    with pytest.raises(ValueError):
        history.restore(value)

    assert history.since("b", 13) == 5.0
