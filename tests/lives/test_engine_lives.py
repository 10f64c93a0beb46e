"""Random lives of an engine: once it is quiet again, what is known is the engine's own list.

Events get lost, doubled and out of order, lists fail, or show what was true when they were asked
for. After every step the report that was made from the one before is compared with one that is made
and evaluated from scratch.
"""

from __future__ import annotations

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from container_healthcheck.board import Board
from container_healthcheck.model.drains import HOST, Drains, Mark
from container_healthcheck.model.host_state import HostState
from container_healthcheck.model.message import Message
from container_healthcheck.model.probe_state import ProbeState
from container_healthcheck.model.report import Report
from container_healthcheck.model.snapshot import snapshot_of
from container_healthcheck.observers.engine import Event
from container_healthcheck.observers.pending import LAST_RELIST
from container_healthcheck.observers.subscription import Observation, Subscription
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
        self.handled_to = 0
        self.failing: dict[str, str] = {}
        self.drains = Drains()
        self.board = Board(HostState(PATTERN), stale_after=STALE_AFTER, clock=lambda: self.clock)
        self.subscription = self._subscribe()

    def _subscribe(self) -> Subscription:
        self.has_listed, self.subscribed_at = False, self.engine.now
        return Subscription(
            lambda _: self.engine,
            self.engine,
            lambda: self.board.state.snapshot,
            self._publish,
            handled_to=self.handled_to,
            subscribed_at=self.engine.now,
            docker_timeout=3.0,
            resync_interval=RESYNC,
            clock=lambda: self.clock,
        )

    def _publish(self, observation: Observation) -> None:
        self.handled_to = observation.handled_to or self.handled_to
        self._take(
            Message(
                containers=observation.containers,
                confirmed_at=observation.confirmed_at,
                fault=observation.fault,
            )
        )

    def _take(self, message: Message) -> None:
        self.board.publish(*self.board.state.after(message))

    @initialize()
    def begin(self) -> None:
        self._list()

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
        before = self.board.state.snapshot.containers
        self.subscription.note(come)
        # Bad news counts at once, whatever the list does; what follows in one go counts together.
        last = {each.container_id: each for each in come}
        for each, event in last.items():
            is_news = self.has_listed or event.time > self.subscribed_at
            if event.action in ("die", "destroy", "pause") and each in before and is_news:
                known = self.board.state.snapshot.containers.get(each)
                assert known is None or not known.is_live
        self._list()

    def _list(self) -> None:
        self.subscription.list_due()
        if not self.engine.failing_lists:
            self.has_listed = True

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
        self._list()

    @rule(count=st.integers(1, 3))
    def lists_fail(self, count: int) -> None:
        self.engine.failing_lists = count

    @precondition(lambda self: self.engine.truth)
    @rule(data=st.data(), state=st.sampled_from(["exited", "running", "paused"]))
    def something_happens_while_the_list_is_slow(self, data: st.DataObject, state: str) -> None:
        which, subscription = self._some(data), self.subscription

        def meanwhile() -> None:
            if which not in self.engine.truth:
                return
            self.engine.set(which, state, {"exited": "die", "running": "start"}.get(state, "pause"))
            subscription.note([self.engine.queued.pop()])

        self.engine.meanwhile = meanwhile
        self.clock += RESYNC
        self._follow()

    @rule(seconds=st.sampled_from([0.06, 0.5, 2.0, 11.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock += seconds
        self._follow()

    def _follow(self) -> None:
        self._list()
        if self.subscription.has_stalled():
            self.the_stream_breaks()

    # --- what else there is to judge by

    @rule(app_code=st.sampled_from(APPS), seen=st.sampled_from(["502", "", "504"]))
    def a_probe_fails_or_passes(self, app_code: str, seen: str) -> None:
        self.failing = {each: why for each, why in self.failing.items() if each != app_code}
        if seen:
            self.failing[app_code] = seen
        self._take(Message(probes={app_code: ProbeState(is_down=bool(seen), seen=seen)}))

    @rule(names=st.sets(st.sampled_from([*APPS, HOST, "nobody"])))
    def marks_change(self, names: set[str]) -> None:
        self.drains = Drains({name: Mark(1.0, None, "") for name in names})
        self._take(Message(drains=self.drains))

    # --- what must hold

    @invariant()
    def the_report_is_that_from_scratch(self) -> None:
        report = self.board.report()
        containers = report.snapshot.containers.values()
        made = snapshot_of(
            containers,
            PATTERN,
            confirmed_at=report.snapshot.confirmed_at,
            fault=report.snapshot.fault,
        )
        assert report.snapshot == made
        fresh = Report(made, self.failing, self.drains, now=self.clock, stale_after=STALE_AFTER)
        assert report.verdicts == fresh.verdicts
        assert report.etag == fresh.etag
        assert report.codes_body == fresh.codes_body
        for app_code in (*APPS, "nobody"):
            assert report.answer(app_code).body == fresh.answer(app_code).body

    def teardown(self) -> None:
        """It becomes quiet: no event is on its way, the list is true, and time passes."""
        self.engine.queued.clear()
        self.engine.failing_lists, self.engine.meanwhile = 0, None
        self.engine.catch_up()
        for _ in range(100):
            self.clock += LAST_RELIST / 40
            self._follow()
        known = self.board.report().snapshot
        made = snapshot_of(self.engine.in_truth(), PATTERN, confirmed_at=known.confirmed_at)
        assert known == made
        self.the_report_is_that_from_scratch()


EngineLife.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
)
TestEngineLives = EngineLife.TestCase
