"""The watcher, with an engine that lags, breaks and turns its clock back."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import pytest

from container_healthcheck.model.container import Container
from container_healthcheck.model.snapshot import Snapshot
from container_healthcheck.model.verdict import Code, Fault
from container_healthcheck.observers.engine import EngineError, Event
from container_healthcheck.observers.watcher import Watcher
from sandbox.waiting import wait_for, wait_until
from tests.unit.containers import PATTERN, container

BROKEN = EngineError(Fault(Code.ENGINE_FAULTY, "broken"))
HOUR = 3600 * 10**9
NOW = 1_800_000_000 * 10**9


class FakeEngine:
    """An engine whose list and events the test makes; also its only client."""

    def __init__(self) -> None:
        self.containers_now = {"1": container("a-1", id="1")}
        self.history: list[Event] = []
        self.since: list[str | None] = []
        self.failing_lists = 0
        self.lists = 0
        self.stream: queue.Queue[Event | None] = queue.Queue()

    def containers(self, *, ids: Sequence[str] = ()) -> list[Container]:
        self.lists += 1
        if self.failing_lists:
            self.failing_lists -= 1
            raise BROKEN
        return [each for key, each in self.containers_now.items() if not ids or key in ids]

    def subscribe(self, since: str | None = None) -> FakeStream:
        self.since.append(since)
        self.stream = queue.Queue()
        # As an engine does: everything from that moment on, the moment included.
        for event in self.history if since and "." in since else []:
            if event.time >= float(since or 0) * 10**9 - 1000:
                self.stream.put(event)
        return FakeStream(self.stream)

    def close(self) -> None:
        pass

    def tell(self, action: str, time: int, container_id: str = "1", **attributes: str) -> None:
        event = Event(container_id, action, time, attributes)
        self.history.append(event)
        self.stream.put(event)

    def set(self, **fields: object) -> None:
        self.containers_now["1"] = replace(self.containers_now["1"], **fields)  # type: ignore[arg-type]

    def break_stream(self) -> None:
        self.stream.put(None)


class FakeStream:
    def __init__(self, events: queue.Queue[Event | None]) -> None:
        self._events = events

    def __iter__(self) -> Iterator[Event]:
        while (event := self._events.get()) is not None:
            yield event
        raise BROKEN

    def close(self) -> None:
        self._events.put(None)


class Watched:
    """A running watcher and what it has published."""

    def __init__(self, engine: FakeEngine, resync_interval: float = 300) -> None:
        self.snapshots: list[Snapshot] = []
        self.started: list[str] = []
        self.watcher = Watcher(
            lambda _: engine,
            self._take,
            pattern=PATTERN,
            docker_timeout=3,
            resync_interval=resync_interval,
        )

    def _take(self, snapshot: Snapshot, _: frozenset[str], started: Mapping[str, str]) -> None:
        self.snapshots.append(snapshot)
        self.started.extend(started)

    def state(self) -> str | None:
        found = self.snapshots[-1].containers.get("1") if self.snapshots else None
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

    engine.tell("die", NOW, exitCode="137")
    watched.becomes("exited")
    lists = engine.lists
    wait_for(lambda: engine.lists > lists + 2, "more looks")
    assert watched.state() == "exited"

    engine.set(state="exited", status="Exited (137) 1 second ago")
    wait_for(
        lambda: watched.snapshots[-1].containers["1"].status == "Exited (137) 1 second ago",
        "the list's own words",
    )
    lists = engine.lists
    engine.tell("die", NOW + 1, container_id="2")
    wait_for(lambda: engine.lists > lists, "another look")


def test_an_event_without_a_time_counts(engine: FakeEngine, watch: Callable[..., Watched]) -> None:
    watched = watch()

    engine.tell("die", 0, exitCode="137")

    watched.becomes("exited")


def test_a_start_is_looked_at_until_the_list_shows_it(
    engine: FakeEngine, watch: Callable[..., Watched]
) -> None:
    watched = watch()
    engine.set(state="exited")
    engine.tell("die", NOW)
    watched.becomes("exited")

    lists = engine.lists
    engine.tell("start", NOW + 1)
    wait_for(lambda: engine.lists > lists + 2, "more looks")
    engine.set(state="running")

    watched.becomes("running")
    assert watched.started == ["1"]


def test_a_full_list_that_is_behind_does_not_bring_the_dead_back(
    engine: FakeEngine, watch: Callable[..., Watched]
) -> None:
    watched = watch(resync_interval=0.5)
    engine.tell("die", NOW)
    watched.becomes("exited")
    count = len(watched.snapshots)

    wait_for(lambda: len(watched.snapshots) > count + 10, "full lists")

    assert {each.containers["1"].state for each in watched.snapshots[count:]} == {"exited"}


def test_a_clock_that_is_set_back_loses_nothing(
    engine: FakeEngine, watch: Callable[..., Watched]
) -> None:
    watched = watch()
    engine.tell("update", NOW)
    wait_for(lambda: engine.lists == 2, "the event to be handled")
    engine.break_stream()
    wait_for(lambda: len(engine.since) == 2, "a new subscription")

    engine.set(state="exited")
    engine.tell("die", NOW - HOUR)

    watched.becomes("exited")


def test_an_event_whose_list_fails_comes_again(
    engine: FakeEngine, watch: Callable[..., Watched]
) -> None:
    watched = watch()
    engine.tell("update", NOW)
    wait_for(lambda: engine.lists == 2, "the event to be handled")

    engine.failing_lists = 1
    engine.tell("start", NOW + 10**6)

    wait_for(lambda: watched.started == ["1"], "the start to be told")
    assert len(engine.since) == 2


def test_an_event_that_was_handled_is_not_handled_again(
    engine: FakeEngine, watch: Callable[..., Watched]
) -> None:
    watched = watch()
    engine.tell("start", NOW)
    wait_for(lambda: watched.started == ["1"], "the start to be told")
    engine.break_stream()
    wait_for(lambda: len(engine.since) == 2, "a new subscription")

    engine.tell("start", NOW + 10**6)
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

    assert all(snapshot.fault is None for snapshot in watched.snapshots)


def test_the_watcher_goes_on_when_its_listener_breaks(
    engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    watched = Watched(engine)
    breaks = iter([True, True])
    take = watched._take

    def fragile(snapshot: Snapshot, _: frozenset[str], started: Mapping[str, str]) -> None:
        if next(breaks, False):
            raise RuntimeError("the listener broke")
        take(snapshot, _, started)

    watched.watcher._publish = fragile
    watched.watcher.start()
    watched.becomes("running")
    watched.watcher.stop()
    engine.break_stream()

    assert caplog.text.count("the watcher stumbled") == 2
