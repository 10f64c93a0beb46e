"""What probes and returns mean for an app: the same records make the same judgement everywhere."""

from __future__ import annotations

import json
from typing import Any

import pytest

from container_healthcheck.model.records import Probed, Returned
from container_healthcheck.model.serving import UNASKED, App, Serving

BAD = "502 Bad Gateway"


def serving(*, fall: int = 2, rise: int = 1) -> Serving:
    return Serving(fall=fall, rise=rise)


def probed(seen: str | None = None, *, after: int = 0, at: float = 1.0) -> Probed:
    return Probed("a", seen, after, at)


def test_an_app_that_nothing_has_happened_to_is_good() -> None:
    assert serving().failing == {}


def test_failures_in_a_row_count_and_one_pass_clears() -> None:
    apps = serving()
    apps.probed(probed(BAD))
    assert apps.failing == {}
    apps.probed(probed(BAD))
    assert apps.failing == {"a": BAD}
    apps.probed(probed("503"))
    assert apps.failing == {"a": "503"}
    apps.probed(probed())
    assert apps.failing == {}


def test_a_single_failure_is_forgiven() -> None:
    apps = serving()
    for _ in range(10):
        apps.probed(probed(BAD))
        apps.probed(probed())

    assert apps.failing == {}


def test_as_many_passes_as_rise_make_it_healthy_again() -> None:
    apps = serving(fall=1, rise=3)
    apps.probed(probed(BAD))
    apps.probed(probed())
    apps.probed(probed())
    apps.probed(probed(BAD))
    apps.probed(probed())
    apps.probed(probed())
    assert apps.failing == {"a": BAD}
    apps.probed(probed())
    assert apps.failing == {}


def test_an_app_that_came_back_waits_for_a_pass() -> None:
    apps = serving()
    apps.returned(Returned("a", "", 1.0), 1)
    assert apps.failing == {"a": UNASKED}
    apps.probed(probed(BAD, after=1))
    assert apps.failing == {"a": BAD}
    apps.probed(probed(after=1))
    assert apps.failing == {}


def test_a_probe_asked_for_before_the_return_says_nothing() -> None:
    apps = serving()
    apps.returned(Returned("a", "", 1.0), 7)

    assert not apps.would_change(probed(after=6))
    apps.probed(probed(after=6))
    assert apps.failing == {"a": UNASKED}
    assert apps.would_change(probed(after=7))


def test_only_a_probe_that_says_something_new_is_told() -> None:
    apps = serving()
    assert not apps.would_change(probed())
    assert apps.would_change(probed(BAD))
    apps.probed(probed(BAD))
    assert apps.would_change(probed())
    apps.probed(probed(BAD))
    # That it was heard of once more: what counts must not grow old.
    assert apps.would_change(probed(BAD, at=2.0))


def test_what_is_kept_comes_back() -> None:
    apps = serving()
    apps.probed(probed(BAD))
    apps.returned(Returned("b", "id@1", 2.5), 3)
    again = serving()

    again.restore(json.loads(json.dumps(apps.to_json())))

    assert again.apps == apps.apps
    assert again.failing == apps.failing == {"b": UNASKED}


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {"a": None},
        {"a": {"nothing": 1}},
        {"a": {"awaited": 1}},
        {"a": {"seen": None}},
        {"a": {"at": "soon"}},
        {"a": {"returned": 1.5}},
    ],
)
def test_what_cannot_be_used_changes_nothing(value: Any) -> None:
    apps = serving(fall=1)
    apps.probed(probed(BAD))

    with pytest.raises(ValueError):
        apps.restore(value)

    assert apps.failing == {"a": BAD}


def test_what_is_old_is_forgotten() -> None:
    apps = serving(fall=1)
    for name, at in (("old", 1.0), ("new", 9.0), ("future", 99.0)):
        apps.probed(Probed(name, BAD, 0, at))
    apps.returned(Returned("back", "", 1.0), 5)
    apps.probed(Probed("back", None, 5, 1.0))
    apps.returned(Returned("longago", "", 1.0), 4)
    apps.probed(Probed("longago", None, 4, 1.0))

    apps.forget(since=5.0, until=10.0, returned_since=5)

    assert set(apps.apps) == {"new", "back"}
    assert apps.app("old") == App()
