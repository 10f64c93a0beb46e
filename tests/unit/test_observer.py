"""The observer: what comes in, and which messages go out, step by step."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from container_healthcheck import observer as observer_module
from container_healthcheck.board import Board
from container_healthcheck.model.container import Container
from container_healthcheck.model.counters import LastProbe
from container_healthcheck.model.history import Change
from container_healthcheck.model.host_state import HostState
from container_healthcheck.model.message import Message
from container_healthcheck.model.probe_state import GOOD, RESTARTED, ProbeState, ProbeStates
from container_healthcheck.model.snapshot import snapshot_of
from container_healthcheck.model.verdict import Code, Fault
from container_healthcheck.observer import Observer, Runtime, run_here
from container_healthcheck.observers.drain_folder import DrainFolder
from container_healthcheck.observers.subscription import Observation
from container_healthcheck.relay.leadership import Leadership
from container_healthcheck.relay.publisher import Publisher
from container_healthcheck.relay.shared import SharedMemory
from container_healthcheck.settings import Settings
from container_healthcheck.storage.saver import Saver
from container_healthcheck.storage.state_file import StateFile
from sandbox.waiting import wait_for, wait_until
from tests.unit.containers import PATTERN, container
from tests.unit.fake_engine import BROKEN, FakeEngine

A, DEAD = container("a-1", id="1"), container("a-1", id="1", state="exited", status="Exited (1)")
BAD = "502 Bad Gateway"
TIMEOUT = Fault(Code.ENGINE_FAULTY, "Docker does not answer in time")


class Clock:
    """In place of the module `time`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now + 1_800_000_000


class Recorder(Publisher):
    """A publisher without followers that keeps what it publishes."""

    messages: list[Message]

    def publish(self, message: Message, state: HostState) -> None:
        self.messages.append(message)
        super().publish(message, state)


class Leading:
    """An observer whose watcher and prober are the test."""

    def __init__(self, clock: Clock, settings: Settings, state: HostState) -> None:
        self.clock = clock
        self.shared = SharedMemory()
        term = Leadership(self.shared).stand(0)
        assert term is not None
        self.term = term
        self.board = Board(state, stale_after=settings.stale_after, clock=clock.monotonic)
        self.publisher = Recorder(term, self.shared, state)
        self.messages = self.publisher.messages = []
        self.file = StateFile(settings.state_dir, "a:1")
        self.saver = Saver(self.file, run_here)
        self.observer = Observer(settings, term, self.board, self.publisher, self.saver, Runtime())

    def observes(
        self, *containers: Container, started: str = "", fault: Fault | None = None
    ) -> None:
        self.observer.observe(
            Observation({each.id: each for each in containers}, frozenset(started), fault=fault)
        )

    def lists(self, *containers: Container, started: str = "", handled_to: int = 0) -> None:
        self.observer.observe(
            Observation(
                self.board.state.snapshot.differences(containers),
                frozenset(started),
                self.clock.now,
                handled_to=handled_to,
            )
        )

    def probed(self, seen: str | None = None, *, restarts: int | None = None) -> None:
        if restarts is None:
            restarts = self.observer.restarts_of("a")
        self.observer.take_probe("a", LastProbe(seen, self.clock.now, 0.1), restarts)

    def passes(self, seconds: float) -> None:
        self.clock.now += seconds
        self.observer.tick()

    @property
    def code(self) -> int:
        return int(self.board.report().verdict("a").code)

    @property
    def changes(self) -> list[tuple[int | None, int]]:
        return [(each.old, each.new) for each in self.board.state.history.oldest_first]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(observer_module, "time", clock)
    return clock


Begin = Callable[..., Leading]


@pytest.fixture
def begin(clock: Clock, tmp_path: Path) -> Iterator[Begin]:
    begun: list[Leading] = []

    def lead(state: HostState | None = None, **settings: object) -> Leading:
        values = {"probe_url": "http://127.0.0.1:1/{app_code}", "state_dir": tmp_path, **settings}
        leading = Leading(clock, Settings(**values), state or HostState(PATTERN))  # type: ignore[arg-type]
        begun.append(leading)
        leading.observer.begin()
        return leading

    yield lead
    for each in begun:
        each.observer.stop()
        each.publisher.close()
        each.saver.flush(60)
    own = {"watcher", "events", "prober", "drains"}
    wait_until(
        lambda: own.intersection(each.name for each in threading.enumerate()),
        lambda left: not left,
        "the end of the threads",
    )


@pytest.fixture
def leading(begin: Begin) -> Leading:
    """One that has listed a healthy app."""
    leading = begin()
    leading.lists(A)
    assert leading.code == 0
    leading.messages.clear()
    return leading


@pytest.fixture
def unprobed(begin: Begin) -> Leading:
    leading = begin(probe_url="")
    leading.lists(A)
    leading.messages.clear()
    return leading


# --- restarts


def test_an_app_that_was_found_running_is_healthy(begin: Begin) -> None:
    leading = begin()
    leading.lists(A)

    assert leading.code == 0
    assert leading.messages[-1].found == {"a": 0}
    assert leading.changes == []


def test_a_restart_and_the_pass_that_it_needs_are_one_message(leading: Leading) -> None:
    leading.observes(DEAD)
    assert leading.code == 13
    leading.lists(A, started="1")

    assert leading.code == 14
    (death, restart) = leading.messages
    assert death.containers == {"1": DEAD}
    assert (restart.containers, restart.probes) == ({"1": A}, {"a": RESTARTED})

    leading.probed(BAD)
    assert leading.code == 14
    leading.probed()
    assert leading.code == 0
    assert leading.changes == [(0, 13), (13, 14), (14, 0)]


def test_a_restart_too_quick_for_the_list_needs_a_pass(leading: Leading) -> None:
    leading.lists(A, started="1")

    assert leading.code == 14
    leading.probed()
    assert leading.code == 0


def test_a_probe_asked_before_a_restart_says_nothing(leading: Leading) -> None:
    before = leading.observer.restarts_of("a")
    leading.lists(A, started="1")

    leading.probed(restarts=before)

    assert leading.code == 14
    leading.probed()
    assert leading.code == 0


def test_an_app_that_is_not_live_is_not_called_failing(leading: Leading) -> None:
    leading.observes(DEAD)
    leading.probed(BAD)
    leading.probed(BAD)

    assert leading.board.state.probes == ProbeStates()


def test_the_restart_of_an_app_that_is_not_probed_is_one_change(unprobed: Leading) -> None:
    unprobed.lists(A, started="1")

    assert unprobed.code == 0
    assert unprobed.changes == [(0, 0)]
    (message,) = unprobed.messages
    assert message.probes == {}
    assert message.changes == (Change(1_800_001_000.0, "a", 0, 0, "restarted: a-1 Up 5 days"),)
    assert unprobed.board.state.history.since("a", 0) is None


def test_the_death_and_the_restart_of_an_app_that_is_not_probed(unprobed: Leading) -> None:
    unprobed.observes(DEAD)
    unprobed.lists(A, started="1")

    assert unprobed.changes == [(0, 13), (13, 0)]


# --- probes


def test_failing_again_publishes_nothing(leading: Leading) -> None:
    leading.probed(BAD)
    assert leading.code == 0
    leading.probed(BAD)
    assert leading.code == 14
    published = len(leading.messages)

    for _ in range(100):
        leading.probed(BAD)

    assert len(leading.messages) == published
    leading.passes(1)
    assert len(leading.messages) == published + 1
    assert leading.board.state.counters.failures == {"a": {"http_502": 102}}


def test_a_probe_that_makes_a_change_travels_with_it(leading: Leading) -> None:
    leading.passes(5)
    leading.messages.clear()
    for seen in (BAD, BAD, None):
        leading.probed(seen)

    assert [each.last_probes["a"].seen for each in leading.messages if each.changes] == [BAD, None]  # type: ignore[union-attr]


def test_counters_are_published_at_most_once_a_second(leading: Leading) -> None:
    leading.passes(10)
    leading.messages.clear()
    for _ in range(50):
        leading.probed()
        leading.observer.observe(Observation(events={"exec_start": 1}))
        leading.passes(0.1)

    assert 4 <= len(leading.messages) <= 6
    leading.passes(1)
    assert leading.board.state.counters.events == {"exec_start": 50}
    assert leading.board.state.counters.probes["a"].asked_at == pytest.approx(1014.9)
    leading.messages.clear()
    leading.passes(5)
    assert leading.messages == []


def test_an_app_that_has_restarted_shows_no_older_probe(leading: Leading) -> None:
    leading.probed()
    leading.passes(1)
    assert "a" in leading.board.state.counters.probes

    leading.lists(A, started="1")

    assert leading.board.state.counters.probes == {}


def test_what_was_probed_of_an_app_that_has_gone_is_forgotten(leading: Leading) -> None:
    leading.probed(BAD)
    leading.probed(BAD)
    leading.passes(1)
    leading.messages.clear()

    leading.lists()

    (message,) = leading.messages
    assert message.containers == {"1": None}
    assert message.probes == {"a": GOOD}
    assert message.last_probes == {"a": None}
    assert leading.board.state.probes == ProbeStates()
    assert leading.changes[-1] == (14, 12)


def test_an_app_that_is_probed_no_more_is_not_failing(begin: Begin) -> None:
    probes = ProbeStates().with_changes({"a": RESTARTED, "b": RESTARTED})
    leading = begin(HostState(PATTERN, probes=probes), probe_paths={"a": "-"})

    assert leading.board.state.probes.states == {"b": RESTARTED}


def test_another_leader_continues_with_what_was_probed(begin: Begin) -> None:
    first = begin()
    first.lists(A)
    first.probed(BAD)
    first.passes(1)
    second = begin(first.board.state)
    second.lists(A)

    assert second.code == 0
    second.probed(BAD)
    assert second.code == 14
    second.passes(1)
    assert second.board.state.counters.failures == {"a": {"http_502": 2}}


# --- Docker


def test_what_changes_nothing_is_not_published(leading: Leading) -> None:
    leading.observes(A)
    leading.observes()
    leading.passes(0)

    assert leading.messages == []


def test_a_fault_is_published_once(leading: Leading, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(10):
        leading.observes(fault=TIMEOUT)

    assert [each.fault for each in leading.messages] == [TIMEOUT]
    assert caplog.messages == [TIMEOUT.text]
    assert leading.code == 0


def test_that_a_snapshot_is_stale_is_recorded(leading: Leading) -> None:
    leading.observes(fault=TIMEOUT)
    leading.passes(14.9)
    assert leading.changes == []
    leading.passes(0.1)
    leading.passes(10)

    assert leading.code == 11
    assert leading.changes == [(0, 11)]
    assert [each.changes for each in leading.messages if each.changes] == [
        (
            Change(
                1_800_001_015.0,
                "a",
                0,
                11,
                f"{TIMEOUT.text} (no full list of containers for over 15 s)",
            ),
        )
    ]

    leading.lists(A)
    assert leading.changes == [(0, 11), (11, 0)]


def test_a_fault_before_the_first_list_is_no_change(begin: Begin) -> None:
    leading = begin()
    leading.observes(fault=TIMEOUT)
    leading.passes(100)

    assert leading.code == 11
    assert not leading.board.state.history.has_begun
    leading.lists(A)
    assert leading.changes == []


def test_an_app_that_went_before_the_first_list_of_another_leader_is_recorded(
    begin: Begin,
) -> None:
    first = begin()
    first.lists(A, container("b-1", id="2"))
    second = begin(first.board.state)

    second.lists(A)

    assert [(each.app_code, each.new) for each in second.board.state.history.changes] == [("b", 12)]


def test_a_message_says_up_to_which_event_it_is_handled(leading: Leading) -> None:
    leading.lists(A, started="1", handled_to=77)

    assert leading.messages[-1].engine_time == 77
    assert leading.board.state.engine_time == 77


# --- the end of the term


def nothing_counts(leading: Leading) -> None:
    state, published = leading.board.state, len(leading.messages)
    leading.observes(DEAD)
    leading.lists()
    leading.probed(BAD)
    leading.probed(BAD)
    leading.passes(100)
    leading.observer.announce()
    assert len(leading.messages) == published
    assert leading.board.state is state


def test_nothing_is_published_after_the_stop(leading: Leading) -> None:
    leading.observer.stop()

    nothing_counts(leading)


def test_nothing_is_published_once_the_term_is_over(leading: Leading) -> None:
    leading.shared.begin(2)

    nothing_counts(leading)


def test_each_message_has_the_next_position(leading: Leading) -> None:
    before = leading.board.state.position
    leading.observes(DEAD)
    leading.observer.announce()

    assert leading.board.state.position == before + 2
    assert leading.shared.position == before + 2


# --- the state file


def saved(leading: Leading) -> HostState | None:
    leading.saver.flush(60)
    found = leading.file.load(PATTERN)
    return None if found is None else found.state


def test_what_is_known_is_saved(leading: Leading) -> None:
    leading.probed(BAD)
    leading.probed(BAD)

    found = saved(leading)
    assert found is not None
    assert found.probes.failing == {"a": BAD}
    assert found.snapshot == leading.board.state.snapshot


def test_counters_alone_are_not_saved(leading: Leading) -> None:
    saved(leading)
    leading.file.path.unlink()
    for _ in range(5):
        leading.probed()
        leading.passes(1)

    assert saved(leading) is None


def test_failures_are_saved_again_before_they_are_outdated(leading: Leading) -> None:
    leading.probed(BAD)
    leading.probed(BAD)
    saved(leading)
    leading.file.path.unlink()

    leading.passes(5)

    assert saved(leading) is not None


# --- with its own threads


class Answers(BaseHTTPRequestHandler):
    status = 502

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def app() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/o/{{app_code}}/"
    server.shutdown()
    thread.join(60)
    server.server_close()


def test_probes_marks_and_the_engine_come_in(
    app: str, begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    engine = FakeEngine()
    engine.failing_lists = 1_000_000
    monkeypatch.setattr(observer_module, "Engine", lambda *_, **__: engine)
    snapshot = snapshot_of([A, container("b-1", id="2")], PATTERN, confirmed_at=1000.0)
    leading = begin(
        HostState(PATTERN, snapshot, ProbeStates().with_changes({"a": RESTARTED})),
        probe_url=app,
        probe_interval=0.2,
    )
    DrainFolder(tmp_path).add("b", "", None)

    leading.observer.start(60)

    report = leading.board.report()
    assert report.verdict("b").code is Code.DRAINED
    assert report.snapshot.fault == BROKEN.fault
    wait_for(lambda: leading.board.state.probes.failing.get("a", "").startswith(BAD), "a failure")
    monkeypatch.setattr(Answers, "status", 200)
    wait_for(lambda: leading.board.state.probes == ProbeStates(), "a pass")
    assert leading.changes == [(0, 15), (14, 0)]


def test_an_app_is_down_until_as_many_passes_as_rise(begin: Begin) -> None:
    leading = begin(probe_rise=2, probe_fall=1)
    leading.lists(A)
    leading.probed(BAD)
    leading.probed()
    assert leading.board.state.probes.of("a") == ProbeState(False, True, 0, 1, BAD)
    assert leading.code == 14
    leading.probed()
    assert leading.code == 0
    assert leading.board.state.probes == ProbeStates()
