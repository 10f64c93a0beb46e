"""The watcher, with an engine that lags, breaks and turns its clock back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from container_healthcheck.model.snapshot import Snapshot
from container_healthcheck.model.verdict import Fault
from container_healthcheck.observers.subscription import Observation
from container_healthcheck.observers.watcher import Watcher
from sandbox.waiting import wait_for, wait_until
from tests.unit.containers import PATTERN
from tests.unit.fake_engine import FakeEngine

HOUR = 3600 * 10**9
NOW = 1_800_000_000 * 10**9


class Watched:
    """A running watcher and what it has published."""

    def __init__(self, engine: FakeEngine, resync_interval: float = 300) -> None:
        self.snapshots = [Snapshot()]
        self.started: list[str] = []
        self.faults: list[Fault] = []
        self.watcher = Watcher(
            lambda _: engine,
            lambda: self.snapshots[-1],
            self._take,
            docker_timeout=3,
            resync_interval=resync_interval,
        )

    def _take(self, observation: Observation) -> None:
        snapshot, _ = self.snapshots[-1].updated(observation.containers, PATTERN)
        if observation.confirmed_at is not None:
            snapshot = replace(snapshot, confirmed_at=observation.confirmed_at)
        self.snapshots.append(snapshot)
        self.started.extend(observation.started)
        if observation.fault is not None:
            self.faults.append(observation.fault)

    def state(self) -> str | None:
        found = self.snapshots[-1].containers.get("1")
        return found.state if found else None

    def becomes(self, state: str | None) -> None:
        wait_for(lambda: self.state() == state, f"the state {state}")


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def watch(engine: FakeEngine) -> Iterator[Callable[..., Watched]]:
    begun: list[Watched] = []

    def begin(**options: float) -> Watched:
        watched = Watched(engine, **options)
        begun.append(watched)
        watched.watcher.start()
        watched.becomes("running")
        return watched

    yield begin
    for watched in begun:
        watched.watcher.stop()
        engine.break_stream()


def test_a_death_counts_before_the_list_shows_it(
    engine: FakeEngine, watch: Callable[..., Watched]
) -> None:
    watched = watch()

    engine.emit("die", NOW, exitCode="137")
    watched.becomes("exited")
    lists = engine.lists
    wait_for(lambda: engine.lists > lists + 2, "more lists")
    assert watched.state() == "exited"

    engine.set(state="exited", status="Exited (137) 1 second ago")
    wait_for(
        lambda: watched.snapshots[-1].containers["1"].status == "Exited (137) 1 second ago",
        "the status text of the list",
    )
    lists = engine.lists
    engine.emit("die", NOW + 1, container_id="2")
    wait_for(lambda: engine.lists > lists, "another list")


def test_an_event_without_a_time_counts(engine: FakeEngine, watch: Callable[..., Watched]) -> None:
    watched = watch()

    engine.emit("die", 0, exitCode="137")

    watched.becomes("exited")


def test_a_start_is_listed_until_the_list_shows_it(
    engine: FakeEngine, watch: Callable[..., Watched]
) -> None:
    watched = watch()
    engine.set(state="exited")
    engine.emit("die", NOW)
    watched.becomes("exited")

    lists = engine.lists
    engine.emit("start", NOW + 1)
    wait_for(lambda: engine.lists > lists + 2, "more lists")
    engine.set(state="running")

    watched.becomes("running")
    assert watched.started == ["1"]


def test_a_full_list_that_is_behind_does_not_bring_the_dead_back(
    engine: FakeEngine, watch: Callable[..., Watched]
) -> None:
    watched = watch(resync_interval=0.5)
    engine.emit("die", NOW)
    watched.becomes("exited")
    count = len(watched.snapshots)

    wait_for(lambda: len(watched.snapshots) > count + 10, "full lists")

    assert {each.containers["1"].state for each in watched.snapshots[count:]} == {"exited"}


def test_a_clock_that_is_set_back_loses_nothing(
    engine: FakeEngine, watch: Callable[..., Watched]
) -> None:
    watched = watch()
    engine.emit("update", NOW)
    wait_for(lambda: engine.lists == 2, "the event to be handled")
    engine.break_stream()
    wait_for(lambda: len(engine.since) == 2, "a new subscription")

    engine.set(state="exited")
    engine.emit("die", NOW - HOUR)

    watched.becomes("exited")


def test_an_event_whose_list_fails_is_listed_again_on_the_same_stream(
    engine: FakeEngine, watch: Callable[..., Watched]
) -> None:
    watched = watch()
    engine.emit("update", NOW)
    wait_for(lambda: engine.lists == 2, "the event to be handled")

    engine.failing_lists = 1
    engine.emit("start", NOW + 10**6)

    wait_for(lambda: watched.started == ["1"], "the start to be published")
    assert len(engine.since) == 1


def test_an_event_that_was_handled_is_not_handled_again(
    engine: FakeEngine, watch: Callable[..., Watched]
) -> None:
    watched = watch()
    engine.emit("start", NOW)
    wait_for(lambda: watched.started == ["1"], "the start to be published")
    engine.break_stream()
    wait_for(lambda: len(engine.since) == 2, "a new subscription")

    engine.emit("start", NOW + 10**6)
    wait_for(lambda: len(watched.started) == 2, "the next start")
    assert watched.started == ["1", "1"]


def test_a_stream_that_breaks_is_no_fault_while_lists_come(
    engine: FakeEngine, watch: Callable[..., Watched]
) -> None:
    watched = watch()
    while len(engine.since) < 5:
        subscriptions = len(engine.since)
        engine.break_stream()
        wait_until(lambda: len(engine.since), subscriptions.__lt__, "a new subscription")

    assert not watched.faults


def test_the_watcher_continues_when_its_listener_breaks(
    engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    watched = Watched(engine)
    breaks = iter([True, True])
    take = watched._take

    def fragile(observation: Observation) -> None:
        if next(breaks, False):
            raise RuntimeError("the listener broke")
        take(observation)

    watched.watcher._publish = fragile
    watched.watcher.start()
    watched.becomes("running")
    watched.watcher.stop()
    engine.break_stream()

    assert (
        caplog.text.count("unexpected error while containers were listed; subscribing again") == 2
    )
