"""Monitors that share a host's memory: one leads, the others follow, and another takes over."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from operator import eq
from pathlib import Path

import pytest

from container_healthcheck import monitor as monitor_module
from container_healthcheck import observer as observer_module
from container_healthcheck.model.history import History, Known
from container_healthcheck.model.host_state import HostState
from container_healthcheck.model.probe_state import RESTARTED, ProbeStates
from container_healthcheck.model.snapshot import snapshot_of
from container_healthcheck.monitor import Monitor
from container_healthcheck.observer import Runtime
from container_healthcheck.observers.drain_folder import DrainFolder
from container_healthcheck.relay import leadership
from container_healthcheck.relay.shared import SharedMemory
from container_healthcheck.settings import Settings
from container_healthcheck.storage.state_file import StateFile
from sandbox.waiting import wait_for, wait_until
from tests.unit.containers import PATTERN, container
from tests.unit.fake_engine import FakeEngine

NOW = time.time_ns()
OWN = {"monitor", "publisher", "follower", "watcher", "events", "prober", "drains"}


class Workers:
    """Monitors in threads of one process, as the workers of one master."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(state_dir=folder)
        self.shared = SharedMemory()
        self.all: list[Monitor] = []

    def start(self, runtime: Runtime | None = None, **settings: object) -> Monitor:
        chosen = replace(self.settings, **settings)  # type: ignore[arg-type]
        monitor = Monitor(chosen, self.shared, runtime)
        self.all.append(monitor)
        monitor.start()
        return monitor

    def leader(self) -> Monitor:
        return wait_until(
            lambda: [each for each in self.all if each.leads],
            lambda found: len(found) == 1,
            "one leader",
        )[0]

    def agree(self, code: int, *workers: Monitor) -> None:
        """Every worker answers this, and from the same state."""
        for each in workers or self.all:
            wait_until(partial(code_of, each), partial(eq, code), f"the code {code}")
        states = {each.board.state.position for each in workers or self.all}
        assert max(states) == self.shared.position


def die(engine: FakeEngine) -> None:
    """The list shows it, too: a leader that subscribes later does not get the event."""
    engine.set(state="exited")
    engine.emit("die", NOW)


def reason_of(monitor: Monitor) -> str:
    return monitor.board.report().verdict("a").reason


def gives(number: int, reason: str) -> bool:
    return reason.endswith(f": {number}")


def code_of(monitor: Monitor) -> int:
    return int(monitor.board.report().verdict("a").code)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    engine = FakeEngine()
    monkeypatch.setattr(observer_module, "Engine", lambda *_, **__: engine)
    return engine


@pytest.fixture
def workers(engine: FakeEngine, tmp_path: Path) -> Iterator[Workers]:
    workers = Workers(tmp_path)
    yield workers
    engine.answers.set()
    for each in workers.all:
        each.end()
    wait_until(
        lambda: OWN.intersection(each.name for each in threading.enumerate()),
        lambda left: not left,
        "the end of the threads",
    )


def test_one_leads_and_the_others_follow(workers: Workers, engine: FakeEngine) -> None:
    first, second, third = (workers.start() for _ in range(3))
    assert [each.leads for each in workers.all] == [True, False, False]
    workers.agree(0)

    die(engine)
    workers.agree(13)

    assert second.board.state == third.board.state == first.board.state
    assert len(engine.since) == 1


def test_whoever_is_asked_answers_what_the_leader_has_answered(
    workers: Workers, engine: FakeEngine
) -> None:
    leader, *followers = (workers.start() for _ in range(3))
    folder = DrainFolder(workers.settings.state_dir)
    for number in range(20):
        folder.add("a", str(number), None)
        wait_until(partial(reason_of, leader), partial(gives, number), "the mark")
        for each in followers:
            assert gives(number, reason_of(each))


def test_another_takes_over_when_the_leader_ends(workers: Workers, engine: FakeEngine) -> None:
    first, second = workers.start(), workers.start()
    workers.agree(0)
    positions = [second.board.state.position]

    first.end()
    wait_for(lambda: second.leads, "another leader")
    workers.agree(0, second)
    die(engine)
    workers.agree(13, second)

    positions.append(second.board.state.position)
    assert positions == sorted(positions)
    assert workers.shared.term == 2
    (change,) = second.board.state.history.changes
    assert (change.old, change.new) == (0, 13)


def test_a_leader_that_stops_hands_over_and_answers_until_its_end(
    workers: Workers, engine: FakeEngine
) -> None:
    first, second = workers.start(), workers.start()
    workers.agree(0)

    first.stop()
    wait_for(lambda: second.leads and not first.leads, "another leader")
    die(engine)

    workers.agree(13, first, second)
    assert not first.leads


def test_the_only_worker_leads_until_its_end(workers: Workers, engine: FakeEngine) -> None:
    only = workers.start()
    only.stop()
    die(engine)
    workers.agree(13)
    assert only.leads

    only.end()

    wait_for(lambda: not only.leads, "its end")
    saved = StateFile(workers.settings.state_dir, "127.0.0.1:4246").load(PATTERN)
    assert saved is not None
    assert saved.state.history.known["a"].code == 13


def test_a_leader_without_a_heartbeat_loses_its_term(
    workers: Workers, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leadership, "LEASE", 1.0)
    monkeypatch.setattr(monitor_module, "LEASE", 1.0)
    frozen = workers.start()
    others = [workers.start() for _ in range(2)]
    workers.agree(0)
    continues = threading.Event()
    observer = observer_module.Observer

    def hang(self: observer_module.Observer) -> None:
        if threading.current_thread() is frozen._thread:
            assert continues.wait(60)

    monkeypatch.setattr(observer, "tick", hang)
    wait_for(lambda: any(each.leads for each in others), "another leader")
    workers.agree(0, *others)
    assert workers.shared.term >= 2
    # What it observes meanwhile reaches nobody: the watcher of the frozen one still runs.
    continues.set()
    wait_for(lambda: not frozen.leads, "the end of its term")

    die(engine)
    workers.agree(13)


def test_workers_that_start_together_agree_on_one_leader(
    workers: Workers, engine: FakeEngine
) -> None:
    threads = [threading.Thread(target=workers.start, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    workers.leader()
    workers.agree(0)
    assert len(engine.since) == 1
    assert workers.shared.term == 1


def test_leaders_come_and_go_and_no_answer_is_older(workers: Workers, engine: FakeEngine) -> None:
    folder = DrainFolder(workers.settings.state_dir)
    workers.start()
    for number in range(5):
        workers.start()
        folder.add("a", str(number), None)
        for each in workers.all:
            wait_until(partial(reason_of, each), partial(gives, number), "the mark")
        old = workers.leader()
        before = max(each.board.state.position for each in workers.all)
        old.end()
        workers.all.remove(old)
        for each in workers.all:
            assert gives(number, reason_of(each))
        assert workers.leader().board.state.position > before


# --- what is saved


SNAPSHOT = snapshot_of([container("a-1", id="1")], PATTERN, confirmed_at=0)
HISTORY = History().after({"a": 0}, [])


def save(workers: Workers, age: float = 0, **fields: object) -> StateFile:
    """Saves a state whose snapshot is so many seconds old."""
    snapshot = replace(SNAPSHOT, confirmed_at=time.monotonic() - age)
    state = HostState(PATTERN, snapshot, history=HISTORY)
    file = StateFile(workers.settings.state_dir, str(workers.settings.bind))
    file.save(replace(state, **fields))  # type: ignore[arg-type]
    return file


def test_while_docker_hangs_the_saved_snapshot_is_answered_from(
    workers: Workers, engine: FakeEngine
) -> None:
    save(workers, engine_time=NOW)
    engine.answers.clear()

    worker = workers.start()

    assert code_of(worker) == 0
    assert worker.board.age is not None and worker.board.age < 15
    # It subscribes from where the one before stopped.
    assert engine.since == [f"{NOW // 10**9}.{NOW % 10**9:09d}"]


def test_a_saved_snapshot_that_is_stale_is_not_answered_from(
    workers: Workers, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor_module, "LONGEST_START", 0.2)
    save(workers, age=15, engine_time=NOW)
    engine.answers.clear()

    worker = workers.start()

    assert code_of(worker) == 11
    assert worker.board.state.history.known == {"a": Known(0, None)}
    engine.answers.set()
    workers.agree(0)
    assert worker.board.state.history.changes == ()


def test_what_was_probed_is_kept_over_a_start(workers: Workers, engine: FakeEngine) -> None:
    url = "http://127.0.0.1:1/{app_code}"
    save(workers, probes=ProbeStates().with_changes({"a": RESTARTED}))

    assert code_of(workers.start(probe_url=url)) == 14


def test_what_was_probed_long_ago_is_not_kept(
    workers: Workers, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    file = save(workers, probes=ProbeStates().with_changes({"a": RESTARTED, "b": RESTARTED}))
    wait_for(lambda: time.monotonic() - saved_at(file) > 0.7, "three intervals")

    worker = workers.start(
        probe_url="http://127.0.0.1:1/{app_code}",
        probe_paths={"b": "-"},
        probe_interval=0.2,
        probe_timeout=0.1,
        probe_fall=100,
    )

    assert code_of(worker) == 0
    assert (
        f"{file.path} says nothing about the last 0.6 s of a: presumed healthy until probed"
        in caplog.messages
    )


def saved_at(file: StateFile) -> float:
    saved = file.load(PATTERN)
    assert saved is not None and saved.saved_at is not None
    return saved.saved_at


def test_a_state_file_that_cannot_be_used_is_one_line(
    workers: Workers, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    file = save(workers)
    file.path.write_text("nothing")

    assert code_of(workers.start()) == 0

    (line,) = (each for each in caplog.messages if str(file.path) in each)
    assert "cannot be used" in line
    assert line.endswith(": apps are presumed healthy until they are probed")


def test_a_disk_that_hangs_delays_no_start(
    workers: Workers,
    engine: FakeEngine,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(monitor_module, "DISK_PATIENCE", 0.1)
    monkeypatch.setattr(monitor_module, "SHORT_START", 0.1)
    disk = threading.Event()

    def offload(work: Callable[[], None]) -> None:
        assert disk.wait(60)
        work()

    worker = workers.start(Runtime(offload=offload))

    workers.agree(0)
    die(engine)
    workers.agree(13)
    assert any("cannot be read: the disk does not answer" in each for each in caplog.messages)
    worker.end()
    disk.set()
