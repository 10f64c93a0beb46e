"""Random lives of several workers: one leads, the others follow, and everything fails.

Deaths at every point of a publication, freezes, changes of the leader, lost messages, followers
that read late, restarts of the service. There are two phases. While faults happen, no answer may be
wrong: no worker calls an app healthy that has restarted and not passed since, and no client sees an
older state after a newer one, whichever workers it asks. Once they are over, every worker knows
everything and agrees with a fresh start.

How a message travels between processes is tested with real sockets elsewhere; here its line waits
in a list for each follower.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from container_healthcheck.board import Board
from container_healthcheck.model import message as messages
from container_healthcheck.model.container import Container
from container_healthcheck.model.counters import LastProbe
from container_healthcheck.model.host_state import HostState, state_of
from container_healthcheck.model.message import Message
from container_healthcheck.model.verdict import Code, Fault
from container_healthcheck.observer import Observer, Runtime
from container_healthcheck.observers.subscription import Observation
from container_healthcheck.relay.leadership import Term
from container_healthcheck.relay.publisher import Publisher
from container_healthcheck.relay.shared import SharedMemory, first_position
from container_healthcheck.settings import Settings
from container_healthcheck.storage.saver import Saver
from container_healthcheck.storage.state_file import StateFile
from tests.unit.containers import PATTERN, container

APPS = ("a", "b", "c")
CODES = st.sampled_from(APPS)
FALL, RISE = 2, 2
FAULTS: Counter[str] = Counter()
"""How often each kind of fault has really happened, over all lives."""
KINDS = (
    "leader died before it published",
    "leader died while it published",
    "leader died after it published",
    "leader died idle",
    "leader frozen",
    "frozen leader woke",
    "follower died",
    "follower frozen",
    "service restarted",
    "engine failed",
)


class WorkerKilled(BaseException):
    """The worker was killed at this point."""


@dataclass
class App:
    """The truth about one app. `starts` counts them; `proven` is the start that a pass followed."""

    is_live: bool = True
    serves: bool = True
    starts: int = 0
    proven: int = 0
    started_at: int = 0


@dataclass(eq=False)
class Worker:
    """A worker: what it answers from, and the messages that it has not read yet."""

    board: Board
    observer: Observer | None = None
    term: int = 0
    unread: list[bytes] = field(default_factory=list)
    is_frozen: bool = False

    def read(self, count: int | None = None) -> None:
        """Applies what has come."""
        taken = self.unread[:count]
        del self.unread[: len(taken)]
        for line in taken:
            fields = json.loads(line)
            position = fields.pop("position")
            state, affected = self.board.state.after(messages.from_json(fields))
            self.board.publish(replace(state, position=position), affected)


@dataclass
class Link:
    """What the leader of one term publishes with. `die_at` is where it is killed, if anywhere."""

    life: WorkerLife
    leader: Worker
    number: int
    die_at: int | None = None

    def publish(self, message: Message, state: HostState) -> None:
        """As Publisher does: announces, then hands the line to each follower's socket."""
        if self.die_at == 0:
            self.life.kill(self.leader, "leader died before it published")
        self.life.shared.announce(self.number, state.position)
        line = json.dumps({**messages.to_json(message), "position": state.position}).encode()
        for count, follower in enumerate(self.life.followers(self.number), start=1):
            follower.unread.append(line)
            if self.die_at == count < len(self.life.followers(self.number)):
                self.life.kill(self.leader, "leader died while it published")
        if self.die_at is not None:
            self.life.kill(self.leader, "leader died after it published")


class WorkerLife(RuleBasedStateMachine):
    """One host, up to four workers of one master."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.settings = Settings(
            state_dir=self.folder,
            probe_url="http://127.0.0.1:1/{app_code}",
            probe_fall=FALL,
            probe_rise=RISE,
            probe_interval=300.0,
        )
        self.apps = {app_code: App() for app_code in APPS}
        self.events = 0
        self.fault: Fault | None = None
        self.under_way: list[tuple[Worker, str, LastProbe, int, int]] = []
        # The highest position that any client has seen, and what it saw there.
        self.seen = 0
        self._begin(HostState(PATTERN))

    def _begin(self, state: HostState) -> None:
        self.shared = SharedMemory()
        self.links: dict[int, Link] = {}
        self.seen = 0
        self.workers: list[Worker] = []
        self.workers.append(self._made(state))
        self._elect(self.workers[0])
        self._add_follower()

    def _made(self, state: HostState) -> Worker:
        shared = self.shared
        return Worker(
            Board(state, stale_after=self.settings.stale_after, latest=lambda: shared.position)
        )

    def _elect(self, worker: Worker) -> None:
        """The worker begins the next term; the others connect to it, and get its full state."""
        number = self.shared.term + 1
        state = replace(worker.board.state, position=first_position(number))
        self.shared.begin(number)
        worker.board.publish(state, None)
        worker.term, worker.unread = number, []
        link = self.links[number] = Link(self, worker, number)
        saver = Saver(StateFile(self.folder, "lives"), lambda work: work())
        observer = Observer(
            self.settings,
            cast(Term, _Term(number, self.shared)),
            worker.board,
            cast(Publisher, link),
            cast(Saver, _Saves(saver)),
            Runtime(),
        )
        worker.observer = observer
        for follower in self.workers:
            if follower is not worker and not follower.is_frozen:
                self._connect(follower)
        observer.begin()
        observer.observe(self._full_list(worker))

    def _connect(self, follower: Worker) -> None:
        leader = self.leader
        if leader is None:
            return
        follower.observer, follower.term, follower.unread = None, self.shared.term, []
        lines = [json.dumps(messages.to_json(each)) for each in leader.board.state.messages()]
        parts = [messages.from_json(json.loads(line)) for line in lines]
        position = leader.board.state.position
        follower.board.publish(state_of(parts, PATTERN, position), None)

    def _add_follower(self) -> None:
        follower = self._made(HostState(PATTERN))
        self.workers.append(follower)
        self._connect(follower)

    @property
    def leader(self) -> Worker | None:
        """The worker that leads the present term, if it is alive."""
        link = self.links[self.shared.term]
        return link.leader if link.leader in self.workers else None

    @property
    def observer(self) -> Observer | None:
        """That of a leader that can do something now."""
        leader = self.leader
        return None if leader is None or leader.is_frozen else leader.observer

    def followers(self, term: int) -> list[Worker]:
        """The workers connected to the leader of a term; frozen ones too: their sockets take it."""
        return [each for each in self.workers if each.term == term and each.observer is None]

    def kill(self, worker: Worker, how: str) -> None:
        """Ends a worker within what it does."""
        FAULTS[how] += 1
        self.workers.remove(worker)
        raise WorkerKilled

    def _lead(self, act: Callable[[Observer], None]) -> None:
        if (observer := self.observer) is not None:
            try:
                act(observer)
            except WorkerKilled:
                pass

    # --- what happens on the host

    def _container(self, app_code: str) -> Container:
        app = self.apps[app_code]
        state = "running" if app.is_live else "exited"
        return container(f"{app_code}-1", state=state, status=f"{state} {app.starts}")

    def _full_list(self, worker: Worker) -> Observation:
        listed = [self._container(each) for each in APPS]
        handled = worker.board.state.engine_time
        return Observation(
            containers=worker.board.state.snapshot.differences(listed),
            started=frozenset(
                f"id of {each}-1" for each, app in self.apps.items() if app.started_at > handled
            ),
            confirmed_at=time.monotonic(),
            handled_to=self.events,
        )

    @rule(app_code=CODES, is_announced=st.booleans())
    def an_app_dies(self, app_code: str, is_announced: bool) -> None:
        self.apps[app_code].is_live = False
        self.events += 1
        dead = {f"id of {app_code}-1": self._container(app_code)}
        if is_announced:
            self._lead(lambda observer: observer.observe(Observation(containers=dead)))

    @rule(app_code=CODES)
    def an_app_starts(self, app_code: str) -> None:
        app = self.apps[app_code]
        app.is_live = True
        app.starts += 1
        self.events += 1
        app.started_at = self.events

    @rule(app_code=CODES, serves=st.booleans())
    def an_app_changes_its_mind(self, app_code: str, serves: bool) -> None:
        self.apps[app_code].serves = serves

    @rule()
    def all_are_listed(self) -> None:
        def act(observer: Observer) -> None:
            leader = self.leader
            assert leader is not None
            observer.observe(self._full_list(leader))

        self._lead(act)

    @rule()
    def the_engine_fails(self) -> None:
        FAULTS["engine failed"] += 1
        fault = Fault(Code.ENGINE_FAULTY, "no list")
        self._lead(lambda observer: observer.observe(Observation(fault=fault)))

    @rule(app_code=CODES)
    def an_app_is_asked(self, app_code: str) -> None:
        observer, leader, app = self.observer, self.leader, self.apps[app_code]
        if observer is not None and leader is not None:
            seen = None if app.is_live and app.serves else "502"
            last = LastProbe(seen, time.time(), 0.01)
            restarts = observer.restarts_of(app_code)
            knows = self._known_starts(leader, app_code) == app.starts
            self.under_way.append((leader, app_code, last, restarts, app.starts if knows else -1))

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def a_probe_ends(self, data: st.DataObject) -> None:
        self._end(self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1))))

    def _end(self, probe: tuple[Worker, str, LastProbe, int, int]) -> None:
        leader, app_code, last, restarts, start = probe
        if leader not in self.workers or leader.is_frozen or leader.observer is None:
            return
        app = self.apps[app_code]
        if last.seen is None:
            app.proven = max(app.proven, start)
        try:
            leader.observer.take_probe(app_code, last, restarts)
        except WorkerKilled:
            pass

    def _known_starts(self, worker: Worker, app_code: str) -> int | None:
        known = worker.board.state.snapshot.containers.get(f"id of {app_code}-1")
        if known is None or known.state != "running":
            return None
        return int(known.status.split()[1])

    # --- what the workers do

    @rule(data=st.data(), count=st.integers(1, 3))
    def a_follower_reads(self, data: st.DataObject, count: int) -> None:
        followers = [each for each in self.followers(self.shared.term) if not each.is_frozen]
        if followers:
            data.draw(st.sampled_from(followers)).read(count)

    @precondition(lambda self: len(self.workers) < 4)
    @rule()
    def a_worker_is_made(self) -> None:
        self._add_follower()

    @rule(point=st.integers(0, 2))
    def the_leader_dies_while_it_publishes(self, point: int) -> None:
        """Before it sends, when it has sent to one of several followers, or to all of them."""
        while len(self.followers(self.shared.term)) < 2 and len(self.workers) < 4:
            self._add_follower()
        self.links[self.shared.term].die_at = point if point < 2 else len(self.workers)
        self._lead(lambda observer: observer.announce())

    @precondition(lambda self: len(self.workers) > 1)
    @rule(data=st.data())
    def a_worker_dies(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(self.workers))
        FAULTS["leader died idle" if worker is self.leader else "follower died"] += 1
        self.workers.remove(worker)

    @rule(data=st.data())
    def a_worker_freezes(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(self.workers))
        if not worker.is_frozen:
            FAULTS["leader frozen" if worker is self.leader else "follower frozen"] += 1
        worker.is_frozen = True

    @precondition(lambda self: any(each.is_frozen for each in self.workers))
    @rule(data=st.data())
    def a_frozen_worker_wakes(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from([each for each in self.workers if each.is_frozen]))
        self._wake(worker)

    def _wake(self, worker: Worker) -> None:
        worker.is_frozen = False
        if worker.observer is not None and worker is not self.leader:
            # Before it notices anything it goes on with what it was about to do.
            FAULTS["frozen leader woke"] += 1
            before = self.shared.position, [list(each.unread) for each in self.workers]
            worker.observer.observe(self._full_list(worker))
            worker.observer.take_probe("a", LastProbe("502", time.time(), 0.01), 0)
            assert (self.shared.position, [list(each.unread) for each in self.workers]) == before
        if worker.term != self.shared.term:
            self._connect(worker)

    @rule()
    def another_worker_becomes_the_leader(self) -> None:
        leader = self.leader
        if leader is None or leader.is_frozen:
            self._succeed()

    def _succeed(self) -> None:
        candidates = [each for each in self.workers if not each.is_frozen]
        if not candidates:
            return
        # They read to the end of the stream before they notice that it has ended; one that knows
        # less than was published leaves another the first chance.
        for each in candidates:
            if each.observer is None:
                each.read()
        best = max(candidates, key=lambda each: each.board.state.position)
        if best.board.state.position < self.seen:
            # Whoever had answered it is dead or frozen, and so is everybody who had received it.
            FAULTS["knowledge lost"] += 1
            self.seen = 0
        if not best.board.state.position:
            # It knows nothing yet.
            best.board.publish(self._saved(), None)
        self._elect(best)

    def _saved(self) -> HostState:
        saved = StateFile(self.folder, "lives").load(PATTERN)
        if saved is not None:
            return saved.state
        # Nothing is known of before: apps that are found running are presumed healthy.
        for app in self.apps.values():
            app.proven = app.starts
        return HostState(PATTERN)

    @rule(chance=st.integers(0, 3))
    def the_service_is_restarted(self, chance: int) -> None:
        if chance:
            return
        FAULTS["service restarted"] += 1
        self.under_way.clear()
        self._begin(self._saved())

    # --- what must hold

    def _answerers(self) -> list[Worker]:
        """The workers that would answer now: one that is behind reads first, if it can."""
        found = []
        for worker in self.workers:
            if worker.is_frozen:
                continue
            if worker.term == self.shared.term:
                worker.read()
            if worker.board.state.position >= self.shared.position:
                found.append(worker)
        return found

    @invariant()
    def no_client_goes_back(self) -> None:
        for worker in self._answerers():
            position = worker.board.state.position
            assert position >= self.seen, (position, self.seen)
            self.seen = position

    @invariant()
    def no_worker_calls_an_unproven_start_healthy(self) -> None:
        for worker in self._answerers():
            report = worker.board.report()
            for app_code, app in self.apps.items():
                if self._known_starts(worker, app_code) == app.starts > app.proven:
                    assert report.verdict(app_code).code is not Code.HEALTHY, app_code

    def teardown(self) -> None:
        """It becomes quiet: nobody is frozen, one worker leads, and each app is asked."""
        try:
            self.links[self.shared.term].die_at = None
            leader = self.leader
            if leader is None or leader.is_frozen:
                for each in self.workers:
                    each.is_frozen = each.is_frozen and each is leader
                self._succeed()
            for each in list(self.workers):
                if each.is_frozen:
                    self._wake(each)
                if each.term != self.shared.term:
                    self._connect(each)
            self.links[self.shared.term].die_at = None
            self.under_way.clear()
            self.all_are_listed()
            for _ in range(FALL + RISE + 1):
                for app_code in APPS:
                    self.an_app_is_asked(app_code)
                while self.under_way:
                    self._end(self.under_way.pop())
            expected = {
                app_code: 13 if not app.is_live else 0 if app.serves else 14
                for app_code, app in self.apps.items()
            }
            assert self.leader is not None
            for worker in self.workers:
                worker.read()
                report = worker.board.report()
                assert {each: int(report.verdict(each).code) for each in APPS} == expected
                state = worker.board.state
                assert {each: known.code for each, known in state.history.known.items()} == expected
                assert state.history == self.leader.board.state.history
                assert replace(state, counters=self.leader.board.state.counters) == (
                    self.leader.board.state
                )
        finally:
            self.stack.close()


@dataclass
class _Term:
    """A term that is over once another has begun."""

    number: int
    shared: SharedMemory

    @property
    def is_over(self) -> bool:
        return self.shared.term != self.number


@dataclass
class _Saves:
    """Saves at once: the life goes on from what is on the disk."""

    saver: Saver

    def save(self, state: HostState, is_wanted: Callable[[], bool]) -> None:
        self.saver._file.save(state, is_wanted)

    def report_hang(self) -> None:
        """It does not hang."""


WorkerLife.TestCase.settings = settings(
    max_examples=80,
    stateful_step_count=50,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
)


class TestWorkerLives(WorkerLife.TestCase):  # type: ignore[misc, valid-type]
    """Runs the lives, and sees that every kind of fault was among them."""

    def runTest(self) -> None:  # noqa: N802
        FAULTS.clear()
        super().runTest()
        assert set(KINDS) <= set(FAULTS), FAULTS
