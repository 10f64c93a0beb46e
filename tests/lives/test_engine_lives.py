"""Random lives of an engine: when all is quiet again, what is known is the engine's own list.

After every step the report that was made from the one before is compared with one that is drawn and
judged from scratch.
"""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from container_healthcheck.board import Board
from container_healthcheck.model.drains import HOST, Drains, Mark
from container_healthcheck.model.report import Report
from container_healthcheck.model.snapshot import Snapshot, snapshot_of
from container_healthcheck.observers.engine import Event
from container_healthcheck.observers.subscription import LAST_LOOK, Cursor, Subscription
from tests.lives.made_engine import MadeEngine
from tests.unit.containers import PATTERN

RESYNC, STALE_AFTER = 10.0, 15.0
NAMES = st.sampled_from(["a", "a-1", "a-2", "a-1-1", "b-1", "b1709878117", "b-11709878117", "c"])
APPS = ("a", "b", "c", "a-1")


class EngineLife(RuleBasedStateMachine):
    """One watcher's subscription, one board, and an engine that misbehaves."""

    def __init__(self) -> None:
        super().__init__()
        self.engine = MadeEngine()
        self.clock = 100.0
        self.cursor = Cursor()
        self.drains = Drains()
        self.failing: dict[str, str] = {}
        self.board = Board(lambda: self.drains, stale_after=STALE_AFTER, clock=lambda: self.clock)
        self.snapshot = Snapshot()
        self.subscription = self._subscribe()

    def _subscribe(self) -> Subscription:
        return Subscription(
            self.cursor,
            self.engine,
            self.engine,
            self._publish,
            pattern=PATTERN,
            resync_interval=RESYNC,
            clock=lambda: self.clock,
        )

    def _publish(self, snapshot: Snapshot, touched: frozenset[str], _: Mapping[str, str]) -> None:
        self.snapshot = snapshot
        self.board.publish(snapshot, self.failing, touched)

    @initialize()
    def begin(self) -> None:
        self.subscription.resync()

    def _some(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(sorted(self.engine.truth)))

    # --- what happens on the host

    @rule(name=NAMES)
    def a_container_is_made(self, name: str) -> None:
        taken = {each["Names"][0] for each in self.engine.truth.values()}
        if f"/{name}" not in taken:
            self.engine.make(name)

    @precondition(lambda self: self.engine.truth)
    @rule(
        data=st.data(),
        how=st.sampled_from(
            [
                ("exited", "die"),
                ("exited", "die", "stop"),
                ("running", "start"),
                ("running", "die", "start", "restart"),
                ("paused", "pause"),
                ("running", "unpause"),
                ("running", "update"),
            ]
        ),
    )
    def a_container_changes(self, data: st.DataObject, how: tuple[str, ...]) -> None:
        state, *actions = how
        self.engine.set(self._some(data), state, *actions)

    @precondition(lambda self: self.engine.truth)
    @rule(data=st.data(), health=st.sampled_from(["healthy", "unhealthy", "health: starting"]))
    def its_health_changes(self, data: st.DataObject, health: str) -> None:
        action = f"health_status: {health.removeprefix('health: ')}"
        self.engine.set(self._some(data), "running", action, health=health)

    @precondition(lambda self: self.engine.truth)
    @rule(data=st.data(), name=NAMES)
    def a_container_is_renamed(self, data: st.DataObject, name: str) -> None:
        self.engine.rename(self._some(data), name)

    @precondition(lambda self: self.engine.truth)
    @rule(data=st.data())
    def a_container_is_removed(self, data: st.DataObject) -> None:
        self.engine.remove(self._some(data))

    @rule()
    def the_list_catches_up(self) -> None:
        self.engine.catch_up()

    @rule(seconds=st.sampled_from([1, 3600]))
    def the_engines_clock_is_set_back(self, seconds: int) -> None:
        self.engine.now -= seconds * 10**9

    # --- how the events come

    @precondition(lambda self: self.engine.queued)
    @rule(data=st.data())
    def events_come(self, data: st.DataObject) -> None:
        count = data.draw(st.integers(1, len(self.engine.queued)))
        come, self.engine.queued = self.engine.queued[:count], self.engine.queued[count:]
        self.subscription.take(come)

    @precondition(lambda self: self.engine.queued)
    @rule(data=st.data())
    def events_are_lost(self, data: st.DataObject) -> None:
        self.engine.queued.pop(data.draw(st.integers(0, len(self.engine.queued) - 1)))

    @precondition(lambda self: self.engine.queued)
    @rule(data=st.data())
    def events_are_doubled_and_out_of_order(self, data: st.DataObject) -> None:
        doubled: list[Event] = [*self.engine.queued, *self.engine.queued[:1]]
        self.engine.queued = data.draw(st.permutations(doubled))

    @rule()
    def the_stream_breaks(self) -> None:
        self.subscription = self._subscribe()
        self.subscription.resync()

    @rule(seconds=st.sampled_from([0.06, 0.5, 2.0, 11.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock += seconds
        self._follow()

    def _follow(self) -> None:
        self.subscription.take([])
        if self.subscription.has_stalled():
            self.the_stream_breaks()

    # --- what else there is to judge by

    @rule(app_code=st.sampled_from(APPS), seen=st.sampled_from(["502", "", "504"]))
    def a_probe_fails_or_passes(self, app_code: str, seen: str) -> None:
        self.failing = {each: why for each, why in self.failing.items() if each != app_code}
        if seen:
            self.failing[app_code] = seen
        self.board.publish(self.snapshot, self.failing, frozenset({app_code}))

    @rule(names=st.sets(st.sampled_from([*APPS, HOST, "nobody"])))
    def marks_change(self, names: set[str]) -> None:
        self.drains = Drains({name: Mark(1.0, None, "") for name in names})

    # --- what must hold

    @invariant()
    def the_report_is_that_from_scratch(self) -> None:
        report = self.board.report()
        containers = report.snapshot.containers.values()
        drawn = snapshot_of(
            containers,
            PATTERN,
            confirmed_at=report.snapshot.confirmed_at,
            fault=report.snapshot.fault,
        )
        assert report.snapshot == drawn
        fresh = Report(drawn, self.failing, self.drains, now=self.clock, stale_after=STALE_AFTER)
        assert report.verdicts == fresh.verdicts
        assert report.etag == fresh.etag
        assert report.codes_body == fresh.codes_body
        for app_code in (*APPS, "nobody"):
            assert report.answer(app_code).body == fresh.answer(app_code).body

    def teardown(self) -> None:
        """It becomes quiet: no event is on its way, the list is true, and time passes."""
        self.engine.queued.clear()
        self.engine.catch_up()
        for _ in range(100):
            self.clock += LAST_LOOK / 40
            self._follow()
        known = self.board.report().snapshot
        drawn = snapshot_of(self.engine.in_truth(), PATTERN, confirmed_at=known.confirmed_at)
        assert known == drawn
        self.the_report_is_that_from_scratch()


EngineLife.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
)
TestEngineLives = EngineLife.TestCase
