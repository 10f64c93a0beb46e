"""One subscription, step by step: bad news at once, good news with the list."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from container_healthcheck.model.container import Container
from container_healthcheck.model.restarts import restarted
from container_healthcheck.model.snapshot import Snapshot
from container_healthcheck.observers import pending, subscription
from container_healthcheck.observers.engine import Event
from container_healthcheck.observers.subscription import Observation, Subscription
from sandbox.waiting import wait_for
from tests.unit.containers import PATTERN
from tests.unit.fake_engine import BROKEN, FakeEngine

SUBSCRIBED_AT = 1_800_000_000 * 10**9
BEFORE, AFTER = SUBSCRIBED_AT - 10**9, SUBSCRIBED_AT + 10**9


class Followed:
    """A subscription that does each step when the test says, on a clock of the test's own."""

    def __init__(self, engine: FakeEngine, handled_to: int = 0) -> None:
        self.engine = engine
        self.now = 1000.0
        self.snapshot = Snapshot()
        self.published: list[Observation] = []
        self.restarts: list[str] = []
        self.breaks = False
        self.subscription = Subscription(
            lambda _: engine,
            engine.subscribe(),
            lambda: self.snapshot,
            self._take,
            handled_to=handled_to,
            subscribed_at=SUBSCRIBED_AT,
            docker_timeout=3,
            resync_interval=300,
            clock=lambda: self.now,
        )

    def _take(self, observation: Observation) -> None:
        if self.breaks:
            raise RuntimeError("it cannot be published")
        self.published.append(observation)
        old = self.snapshot
        new, affected = old.updated(observation.containers, PATTERN)
        if observation.confirmed_at is not None:
            new = replace(new, confirmed_at=observation.confirmed_at)
        started = observation.started & new.containers.keys()
        self.restarts += sorted(restarted(old, new, {*affected, "a"}, started))
        self.snapshot = new

    def note(self, *actions: str, at: int = AFTER, container_id: str = "1") -> None:
        """These events come together."""
        events = [Event(container_id, action, at + n, {}) for n, action in enumerate(actions)]
        self.subscription.note(events)

    def list(self) -> float:
        return self.subscription.list_due()

    def passes(self, seconds: float) -> None:
        self.now += seconds

    @property
    def container(self) -> Container | None:
        return self.snapshot.containers.get("1")

    def is_live(self) -> bool:
        return bool(self.snapshot.live("a"))


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def followed(engine: FakeEngine) -> Followed:
    """One that has listed all containers."""
    followed = Followed(engine)
    followed.list()
    assert followed.is_live()
    return followed


BAD_NEWS = ["die", "pause", "destroy", "health_status: unhealthy"]


@pytest.mark.parametrize("action", BAD_NEWS)
def test_bad_news_counts_while_the_list_hangs(
    followed: Followed, engine: FakeEngine, action: str
) -> None:
    engine.answers.clear()
    followed.passes(300)
    listing = threading.Thread(target=followed.list, daemon=True)
    listing.start()
    wait_for(lambda: engine.lists == 2, "a list that hangs")

    followed.note(action)

    assert not followed.is_live()
    # The answer, which is older than the event, does not bring it back.
    engine.answers.set()
    listing.join(60)
    assert followed.now in [each.confirmed_at for each in followed.published]
    assert not followed.is_live()


@pytest.mark.parametrize("action", BAD_NEWS)
def test_bad_news_counts_while_lists_fail(
    followed: Followed, engine: FakeEngine, action: str
) -> None:
    engine.failing_lists = 3
    followed.note(action)
    assert not followed.is_live()

    for _ in range(3):
        followed.passes(max(followed.list(), 1))
        assert followed.published[-1].fault == BROKEN.fault
        assert not followed.is_live()
    followed.list()
    assert followed.published[-1].fault is None
    assert followed.now in [each.confirmed_at for each in followed.published]


@pytest.mark.parametrize(
    ("state", "health", "action"),
    [
        ("exited", "", "start"),
        ("paused", "", "unpause"),
        ("running", "unhealthy", "health_status: healthy"),
    ],
)
def test_good_news_waits_for_the_list(
    engine: FakeEngine, state: str, health: str, action: str
) -> None:
    engine.set(state=state, health=health)
    followed = Followed(engine)
    followed.list()
    assert not followed.is_live()

    followed.note(action)
    assert not followed.is_live()
    followed.passes(followed.list())
    assert not followed.is_live()

    engine.set(state="running", health="")
    if health:
        engine.set(health="healthy")
    followed.list()
    assert followed.is_live()
    assert followed.restarts == ["a"]


def test_a_death_and_a_start_that_come_together_are_a_restart(
    followed: Followed, engine: FakeEngine
) -> None:
    followed.note("die", "stop", "start", "restart")
    assert followed.is_live()
    assert followed.restarts == []

    followed.list()

    assert followed.is_live()
    assert followed.restarts == ["a"]
    assert all(not observation.containers for observation in followed.published[1:-1])


def test_a_death_and_a_start_that_come_apart_are_a_death_and_a_restart(
    followed: Followed, engine: FakeEngine
) -> None:
    followed.note("die")
    assert not followed.is_live()
    followed.note("start", at=AFTER + 9)
    assert not followed.is_live()

    followed.list()

    assert followed.is_live()
    assert followed.restarts == ["a"]


def test_a_start_counts_once(followed: Followed) -> None:
    followed.note("start")
    followed.list()
    followed.passes(300)
    followed.list()

    assert followed.restarts == ["a"]


def test_a_start_that_could_not_be_published_is_published_with_the_next_list(
    followed: Followed,
) -> None:
    followed.note("start")
    followed.breaks = True
    with pytest.raises(RuntimeError):
        followed.list()
    followed.breaks = False
    followed.passes(300)

    followed.list()

    assert followed.restarts == ["a"]


# --- events from before the subscription


def test_an_older_event_is_no_news_before_the_first_list(engine: FakeEngine) -> None:
    followed = Followed(engine)
    followed.snapshot = followed.snapshot.updated(engine.containers_now, PATTERN)[0]

    followed.note("die", "start", at=BEFORE)
    followed.note("pause", at=BEFORE + 9)
    assert followed.is_live()

    engine.set(state="paused")
    followed.list()
    assert not followed.is_live()


def test_an_event_from_after_the_subscription_is_news_before_the_first_list(
    engine: FakeEngine,
) -> None:
    followed = Followed(engine)
    followed.snapshot = followed.snapshot.updated(engine.containers_now, PATTERN)[0]

    followed.note("update", at=BEFORE)
    assert followed.is_live()
    followed.note("die", at=AFTER)

    assert not followed.is_live()


def test_an_event_without_a_time_is_news(engine: FakeEngine) -> None:
    followed = Followed(engine)
    followed.snapshot = followed.snapshot.updated(engine.containers_now, PATTERN)[0]

    followed.subscription.note([Event("1", "die", 0, {})])

    assert not followed.is_live()


def test_a_clock_that_was_set_back_hides_no_event(followed: Followed) -> None:
    followed.note("die", at=BEFORE)

    assert not followed.is_live()


def test_an_event_that_was_handled_before_is_not_handled_again(engine: FakeEngine) -> None:
    followed = Followed(engine, handled_to=AFTER)
    followed.list()

    followed.note("die", at=AFTER)

    assert followed.is_live()
    assert len(followed.published) == 1


# --- what the list has not shown yet


def test_a_list_says_up_to_which_event_it_is_handled(
    followed: Followed, engine: FakeEngine
) -> None:
    assert [each.handled_to for each in followed.published] == [0]
    followed.note("die", at=AFTER)
    engine.set(state="exited")

    followed.list()

    assert [each.handled_to for each in followed.published] == [0, 0, AFTER]


def test_a_container_is_listed_until_the_list_agrees(
    followed: Followed, engine: FakeEngine
) -> None:
    followed.note("die")
    pauses = []
    for _ in range(6):
        pauses.append(followed.list())
        followed.passes(pauses[-1])
    assert not followed.is_live()
    assert pauses == pytest.approx([0.0125, 0.025, 0.05, 0.1, 0.2, 0.4])

    engine.set(state="exited", status="Exited (137)")
    followed.list()

    assert followed.container == engine.containers_now["1"]
    assert followed.list() > 100


def test_a_list_that_never_agrees_is_right_in_the_end(
    followed: Followed, engine: FakeEngine
) -> None:
    followed.note("die")
    followed.list()
    followed.passes(pending.LAST_RELIST)
    followed.list()
    followed.passes(300)
    followed.list()

    assert followed.is_live()


def test_what_no_event_has_announced_stalls_the_subscription(
    followed: Followed, engine: FakeEngine
) -> None:
    engine.set(state="exited")
    followed.passes(300)
    followed.list()
    assert not followed.is_live()

    stalled = [followed.subscription.has_stalled()]
    followed.passes(subscription.LATE_EVENT)
    stalled.append(followed.subscription.has_stalled())
    followed.note("die")
    stalled.append(followed.subscription.has_stalled())

    assert stalled == [False, True, False]


def test_a_new_status_text_stalls_nothing(followed: Followed, engine: FakeEngine) -> None:
    engine.set(status="Up 6 days")
    followed.passes(300)
    followed.list()
    followed.passes(10)

    assert followed.container == engine.containers_now["1"]
    assert not followed.subscription.has_stalled()


def test_events_are_counted_by_action(followed: Followed) -> None:
    followed.note("die", "start", "die", "health_status: unhealthy", "exec_create: sh -c x")

    assert followed.published[-1].events == {
        "die": 2,
        "start": 1,
        "health_status": 1,
        "exec_create": 1,
    }


def test_nothing_counts_after_its_end(followed: Followed, engine: FakeEngine) -> None:
    count = len(followed.published)
    followed.subscription._end()
    engine.set(state="exited")
    followed.passes(300)

    followed.note("die")
    followed.list()
    engine.failing_lists = 1
    followed.passes(300)
    followed.list()

    assert len(followed.published) == count


def test_a_stream_goes_on_while_lists_fail(engine: FakeEngine) -> None:
    engine.failing_lists = 3
    followed = Followed(engine)
    stopping = threading.Event()
    following = threading.Thread(target=followed.subscription.follow, args=(stopping,), daemon=True)
    following.start()

    def time_passes() -> bool:
        followed.passes(0.1)
        return followed.is_live()

    wait_for(time_passes, "the list that succeeds")
    engine.emit("die", AFTER)
    wait_for(lambda: not followed.is_live(), "the death")

    assert following.is_alive()
    assert [each.fault for each in followed.published[:3]] == [BROKEN.fault] * 3
    assert len(engine.since) == 1
    stopping.set()
    engine.break_stream()
    following.join(60)
    assert not following.is_alive()
