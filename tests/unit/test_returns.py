"""Which apps have come back, and what another worker has told of already."""

from __future__ import annotations

import pytest

import container_healthcheck.model.returns
from container_healthcheck.model.container import Container
from container_healthcheck.model.records import Returned
from container_healthcheck.model.returns import Return, Returns
from container_healthcheck.model.serving import Serving
from container_healthcheck.model.snapshot import Snapshot, snapshot_of
from tests.unit.containers import PATTERN, container

OLD, NEW = container("a-1"), container("a-2")
DEAD = container("a-1", state="exited")


class Seen:
    """What one worker sees, one snapshot after the other; `number` records were read then."""

    def __init__(self) -> None:
        self.returns = Returns()
        self.snapshot = Snapshot()

    def see(
        self, *containers: Container, started: dict[str, str] | None = None, number: int = 0
    ) -> list[Return]:
        new = snapshot_of(containers, PATTERN, confirmed_at=0)
        touched = {*self.snapshot.apps, *new.apps}
        self.snapshot = new
        return self.returns.observe(new, touched, started or {}, number)


@pytest.fixture
def seen() -> Seen:
    seen = Seen()
    seen.see(OLD, container("b-1"))
    return seen


def codes(returns: list[Return]) -> list[str]:
    return [each.app_code for each in returns]


def test_apps_found_at_the_start_have_not_come_back() -> None:
    assert Seen().see(OLD) == []


def test_a_snapshot_that_is_not_confirmed_is_no_start() -> None:
    seen = Seen()
    seen.returns.observe(Snapshot(), [], {}, 0)

    assert seen.see(OLD) == []


def test_an_app_that_appears_later_has_come_back(seen: Seen) -> None:
    assert codes(seen.see(OLD, container("c-1"))) == ["c"]


def test_an_app_that_died_and_came_back(seen: Seen) -> None:
    assert seen.see(DEAD) == []
    assert codes(seen.see(OLD)) == ["a"]


def test_a_restart_too_quick_to_be_seen_dead(seen: Seen) -> None:
    assert seen.see(OLD, started={OLD.id: "x@1"}) == [Return("a", "x@1", None)]


def test_a_redeploy_is_no_return(seen: Seen) -> None:
    assert seen.see(OLD, NEW, started={NEW.id: "x@1"}) == []
    assert seen.see(NEW) == []


def test_an_app_replaced_at_once_has_come_back(seen: Seen) -> None:
    assert codes(seen.see(NEW, started={NEW.id: "x@1"})) == ["a"]


def test_a_start_that_the_list_shows_later_keeps_its_cause(seen: Seen) -> None:
    seen.see(DEAD)
    assert seen.see(DEAD, started={DEAD.id: "x@1"}) == []
    assert seen.see(OLD)[0].cause == "x@1"
    # Used up: the next return is another.
    seen.see(container("a-1", state="paused"))
    assert seen.see(OLD)[0].cause == ""


def test_who_saw_it_gone_before_it_was_told_knows_the_same_return(seen: Seen) -> None:
    serving = Serving(fall=2, rise=1)
    seen.see(DEAD, number=3)
    (back,) = seen.see(OLD, number=3)
    assert seen.returns.is_news(back, serving)

    serving.returned(Returned("a", "", 0.0), 4)

    assert not seen.returns.is_news(back, serving)


def test_who_saw_it_gone_after_it_was_told_knows_another_return(seen: Seen) -> None:
    serving = Serving(fall=2, rise=1)
    serving.returned(Returned("a", "", 0.0), 4)
    seen.see(DEAD, number=4)
    (back,) = seen.see(OLD, number=4)

    assert seen.returns.is_news(back, serving)


def test_the_engines_event_tells_the_same_return_on_a_worker_that_lags(seen: Seen) -> None:
    serving = Serving(fall=2, rise=1)
    serving.returned(Returned("a", "x@1", 0.0), 4)
    seen.see(DEAD, number=4)
    (back,) = seen.see(OLD, number=4, started={OLD.id: "x@1"})

    assert not seen.returns.is_news(back, serving)
    (again,) = seen.see(OLD, number=4, started={OLD.id: "x@2"})
    assert seen.returns.is_news(again, serving)


def test_a_new_app_that_was_told_of_is_no_news(seen: Seen) -> None:
    serving = Serving(fall=2, rise=1)
    (back,) = seen.see(OLD, container("c-1"), number=9)
    assert seen.returns.is_news(back, serving)
    serving.returned(Returned("c", "", 0.0), 5)
    assert not seen.returns.is_news(back, serving)


def test_apps_that_come_and_go_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container_healthcheck.model.returns, "MOST_GONE", 10)
    seen = Seen()
    seen.see()
    for number in range(100):
        name = f"job{number}-1"
        seen.see(container(name), started={f"id of {name}": f"{number}@1"}, number=number)
        seen.see(number=number)

    assert len(seen.returns._gone_at) <= 10
    assert len(seen.returns._causes) <= 10
    # One that was forgotten, told of before it went, is news when it comes back.
    serving = Serving(fall=2, rise=1)
    serving.returned(Returned("job1", "", 0.0), 1)
    (back,) = seen.see(container("job1-1"), number=100)
    assert seen.returns.is_news(back, serving)
