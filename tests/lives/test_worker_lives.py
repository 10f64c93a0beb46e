"""Random lives of several workers on one ledger, with deaths and restarts in between.

Each worker sees the host with its own lag. Whatever happened: when all have looked and all apps
were asked, all workers judge alike, as a fresh start would; and at no time does a worker call an
app healthy of which it knows that it started after its last pass.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from container_healthcheck.model.container import Container
from container_healthcheck.model.records import Probed
from container_healthcheck.model.snapshot import Snapshot, snapshot_of
from container_healthcheck.model.verdict import Code
from container_healthcheck.monitor import Monitor, Shared
from container_healthcheck.observers.replica import since_boot
from container_healthcheck.settings import Settings
from tests.unit.containers import PATTERN, container

APPS = ("a", "b", "c")
CODES = st.sampled_from(APPS)
FALL, RISE = 2, 2


@dataclass
class App:
    """The truth about one app. `starts` counts them; `proven` is the start that a pass followed."""

    is_live: bool = True
    serves: bool = True
    starts: int = 0
    proven: int = 0


@dataclass
class Worker:
    """A worker and what it has seen: of each app how often it had started, None when not live."""

    monitor: Monitor = field(repr=False)
    snapshot: Snapshot = field(default_factory=Snapshot, repr=False)
    seen: dict[str, int | None] = field(default_factory=dict)


@dataclass(frozen=True)
class UnderWay:
    """A probe that was asked for and has not ended. The answer is that of the moment of asking."""

    lead: Worker
    app_code: str
    record: Probed
    start: int


class WorkerLife(RuleBasedStateMachine):
    """One host, up to four workers of one master."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.apps = {app_code: App() for app_code in APPS}
        self.under_way: list[UnderWay] = []
        # The start of each app that some worker has told of, and the number of that record: who has
        # read it must obey it.
        self.told: dict[str, tuple[int, int]] = {}
        self._begin()

    def _begin(self) -> None:
        self.files = [
            self.stack.enter_context(tempfile.TemporaryFile(buffering=0))  # noqa: SIM115
            for _ in range(2)
        ]
        self.workers: list[Worker] = []
        for _ in range(2):
            self._add_worker()

    def _add_worker(self) -> None:
        ledger, sheet = (file.fileno() for file in self.files)
        worker: list[Worker] = []
        shared = Shared(ledger, sheet, lambda: self.workers[0] is worker[0])
        monitor = Monitor(
            Settings(
                state_dir=self.folder,
                probe_url="http://127.0.0.1:1/{app_code}",
                probe_fall=FALL,
                probe_rise=RISE,
                probe_interval=300.0,
            ),
            shared,
        )
        monitor.open()
        worker.append(Worker(monitor))
        self.workers.append(worker[0])
        self._see(worker[0])

    def _see(self, worker: Worker) -> None:
        """Shows a worker the host as it is; a start that it did not see comes with its event."""
        containers, started = [], {}
        for app_code, app in self.apps.items():
            each = self._container(app_code)
            containers.append(each)
            before = worker.seen.get(app_code)
            if app.is_live and app_code in worker.seen and before != app.starts:
                started[each.id] = f"{app_code}@{app.starts}"
            worker.seen[app_code] = app.starts if app.is_live else None
        new = snapshot_of(containers, PATTERN, confirmed_at=time.monotonic())
        touched = {
            each for each in APPS if new.by_app.get(each) != worker.snapshot.by_app.get(each)
        }
        ids = {each.id: each.name.partition("-")[0] for each in containers}
        touched |= {ids[each] for each in started}
        worker.snapshot = new
        worker.monitor.on_snapshot(new, frozenset(touched), started)
        for app_code in {ids[each] for each in started}:
            if self.told.get(app_code, (0, 0))[0] < self.apps[app_code].starts:
                self.told[app_code] = self.apps[app_code].starts, worker.monitor.number

    def _container(self, app_code: str) -> Container:
        state = "running" if self.apps[app_code].is_live else "exited"
        return container(f"{app_code}-1", state=state)

    def _pick(self, data: st.DataObject) -> Worker:
        return data.draw(st.sampled_from(self.workers))

    # --- what happens on the host

    @rule(app_code=CODES)
    def an_app_dies(self, app_code: str) -> None:
        self.apps[app_code].is_live = False

    @rule(app_code=CODES)
    def an_app_starts(self, app_code: str) -> None:
        app = self.apps[app_code]
        app.is_live = True
        app.starts += 1

    @rule(app_code=CODES, serves=st.booleans())
    def an_app_changes_its_mind(self, app_code: str, serves: bool) -> None:
        self.apps[app_code].serves = serves

    # --- what the workers do

    @rule(data=st.data())
    def a_worker_sees(self, data: st.DataObject) -> None:
        self._see(self._pick(data))

    @rule(data=st.data())
    def a_worker_looks(self, data: st.DataObject) -> None:
        self._pick(data).monitor.look()

    @rule(app_code=CODES)
    def the_lead_asks(self, app_code: str) -> None:
        lead, app = self.workers[0], self.apps[app_code]
        if lead.seen.get(app_code) is not None:
            seen = None if app.is_live and app.serves else "502"
            record = Probed(app_code, seen, lead.monitor.number, since_boot())
            self.under_way.append(UnderWay(lead, app_code, record, app.starts))

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def a_probe_ends(self, data: st.DataObject) -> None:
        which = data.draw(st.integers(0, len(self.under_way) - 1))
        self._end(self.under_way.pop(which))

    def _end(self, each: UnderWay) -> None:
        if each.lead not in self.workers:
            return
        each.lead.monitor.take_probe(each.record)
        app = self.apps[each.app_code]
        if each.record.seen is None:
            app.proven = max(app.proven, each.start)

    @precondition(lambda self: len(self.workers) > 1)
    @rule(data=st.data())
    def a_worker_dies(self, data: st.DataObject) -> None:
        self.workers.remove(self._pick(data))
        # The master makes another, which learns what is known before it answers.

    @precondition(lambda self: len(self.workers) < 4)
    @rule()
    def a_worker_is_made(self) -> None:
        self._add_worker()

    @rule()
    def the_service_is_restarted(self) -> None:
        # The lead keeps what it has read at each look, of which there are ten a second.
        self.workers[0].monitor.look()
        self._begin()

    # --- what must hold

    @invariant()
    def nobody_calls_a_new_start_healthy(self) -> None:
        for worker in self.workers:
            report = worker.monitor.board.report()
            for app_code, app in self.apps.items():
                start, number = self.told.get(app_code, (0, 0))
                has_read = worker.monitor.number >= number
                if worker.seen.get(app_code) == start > app.proven and has_read:
                    assert report.verdict(app_code).code is not Code.HEALTHY, app_code

    def _everybody_looks(self) -> Iterator[dict[str, int]]:
        for worker in self.workers:
            worker.monitor.look()
        for worker in self.workers:
            codes = {each: int(worker.monitor.board.report().verdict(each).code) for each in APPS}
            yield codes

    def teardown(self) -> None:
        """It becomes quiet: everybody sees the host as it is, and each app is asked."""
        try:
            for each in self.under_way:
                self._end(each)
            for worker in self.workers:
                self._see(worker)
            for _ in range(FALL + RISE + 1):
                for app_code in APPS:
                    self.the_lead_asks(app_code)
                while self.under_way:
                    self._end(self.under_way.pop())
                first, *others = self._everybody_looks()
                assert all(codes == first for codes in others)
            expected = {
                app_code: 13 if not app.is_live else 0 if app.serves else 14
                for app_code, app in self.apps.items()
            }
            assert first == expected
            histories = [worker.monitor.board.history for worker in self.workers]
            assert all(each.changes == histories[0].changes for each in histories)
            assert {each: known.code for each, known in histories[0].known.items()} == expected
        finally:
            self.stack.close()


WorkerLife.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
)
TestWorkerLives = WorkerLife.TestCase
