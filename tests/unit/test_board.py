"""The board: reports are renewed when something changes, and only then; waiting ends in time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from container_healthcheck import board as board_module
from container_healthcheck.board import Board
from container_healthcheck.model.drains import HOST, Drains, Mark
from container_healthcheck.model.host_state import HostState
from container_healthcheck.model.message import Message
from container_healthcheck.model.probe_state import ProbeState
from container_healthcheck.model.report import Report
from container_healthcheck.model.snapshot import Snapshot, snapshot_of
from container_healthcheck.model.verdict import Code
from sandbox.waiting import wait_for
from tests.unit.containers import PATTERN, container

STALE_AFTER = 15.0
BOTH = frozenset({"a", "b"})
A = frozenset({"a"})


class Host:
    """A board, and messages that change what it shows."""

    def __init__(self) -> None:
        self.now = 100.0
        self.latest = 0
        snapshot = snapshot_of([container("a-1"), container("b-1")], PATTERN, confirmed_at=100)
        self.board = Board(
            HostState(PATTERN, snapshot),
            stale_after=STALE_AFTER,
            latest=lambda: self.latest,
            clock=lambda: self.now,
        )

    def apply(self, message: Message) -> frozenset[str]:
        state, affected = self.board.state.after(message)
        state = replace(state, position=state.position + 1)
        return self.board.publish(state, affected).evaluated

    def shows(self, snapshot: Snapshot) -> frozenset[str]:
        changes = self.board.state.snapshot.differences(snapshot.containers.values())
        return self.apply(Message(containers=changes, confirmed_at=snapshot.confirmed_at))

    def fail(self, seen: str = "502") -> frozenset[str]:
        return self.apply(Message(probes={"a": ProbeState(is_down=True, failures=2, seen=seen)}))

    def drain(self, *names: str) -> frozenset[str]:
        return self.apply(Message(drains=Drains({each: Mark(0, None, "") for each in names})))


@pytest.fixture
def host() -> Host:
    return Host()


def test_a_report_is_kept_until_something_changes(host: Host) -> None:
    report = host.board.report()

    assert host.board.report() is report
    assert host.fail() == A
    assert host.board.report().verdict("a").code is Code.NOT_SERVING


def test_a_report_ends_when_its_snapshot_becomes_stale(host: Host) -> None:
    assert host.board.report().verdict("a").is_healthy

    host.now = 100 + STALE_AFTER
    report = host.board.report()

    assert report.evaluated == BOTH
    assert report.verdict("a").code is Code.ENGINE_FAULTY
    assert host.board.report() is report


def test_a_state_that_is_evaluated_is_not_shown_yet(host: Host) -> None:
    shown = host.board.report()
    state, affected = host.board.state.after(Message(drains=Drains({"a": Mark(0, None, "")})))

    report = host.board.evaluate(state, affected)

    assert report.evaluated == A
    assert host.board.report() is shown
    host.board.show(state, report)
    assert host.board.report() is report


def test_an_answer_is_made_once(host: Host) -> None:
    answer = host.board.report().answer("b")
    body = answer.body

    host.fail()

    assert host.board.report().answer("b") is answer
    assert answer.body is body


def test_only_affected_apps_are_evaluated_again(host: Host) -> None:
    assert host.fail() == A
    assert host.drain("b") == {"b"}
    assert host.drain(HOST) == BOTH
    assert host.apply(Message(confirmed_at=101)) == frozenset()
    assert host.board.publish(host.board.state, None).evaluated == BOTH


def test_what_callers_make_up_is_not_kept(host: Host) -> None:
    report = host.board.report()

    for number in range(1000):
        answer = report.answer(f"x{number}")
        assert answer.code is Code.NO_CONTAINER
        assert b'"code":12' in answer.body

    assert set(report.verdicts) == BOTH


def test_all_codes_include_drained_apps_without_containers(host: Host) -> None:
    host.drain("c")

    body = host.board.report().codes_body

    assert body == b'{"code":0,"status":"ok","message":{"a":0,"b":0,"c":15}}'


def test_equal_codes_have_equal_etags(host: Host) -> None:
    board = host.board
    before = board.report().etag
    first = board.state.snapshot
    other = [container("a-1", status="Up 6 days"), container("b-7")]
    host.shows(snapshot_of(other, PATTERN, confirmed_at=100))
    assert board.report().etag == before

    host.fail()
    failing = board.report().etag
    assert failing != before
    host.apply(Message(probes={"a": ProbeState()}))
    assert board.report().etag == before
    # The same, whatever way led there.
    fresh = Report(first, {"a": "502"}, now=100, stale_after=STALE_AFTER)
    assert fresh.etag == failing


# --- waiting


def always(_: Report) -> bool:
    return True


def test_waiting_ends_at_once_when_the_report_is_not_known(host: Host) -> None:
    assert host.board.wait(lambda _: False, 1000).verdict("a").is_healthy


def test_without_time_there_is_no_waiting(host: Host) -> None:
    assert host.board.wait(always, 0).verdict("a").is_healthy


def in_background(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def a_probe_fails(host: Host) -> None:
    host.fail()


def a_container_dies(host: Host) -> None:
    dead = [container("a-1", state="exited"), container("b-1")]
    host.shows(snapshot_of(dead, PATTERN, confirmed_at=100))


def a_mark_is_made(host: Host) -> None:
    host.drain("a")


@pytest.mark.parametrize("change", [a_probe_fails, a_container_dies, a_mark_is_made])
def test_waiting_ends_when_a_verdict_changes(host: Host, change: Callable[[Host], None]) -> None:
    known = host.board.report()
    found: list[Report] = []
    waiting = in_background(
        lambda: found.append(host.board.wait(lambda report: report.etag == known.etag, 1000))
    )
    wait_for(lambda: host.board.waiting_clients, "a client that waits")

    host.apply(Message(confirmed_at=100.5))
    change(host)
    waiting.join(60)

    assert not found[0].verdict("a").is_healthy
    assert host.board.waiting_clients == 0


def test_waiting_ends_when_the_snapshot_becomes_stale() -> None:
    now = time.monotonic()
    snapshot = snapshot_of([container("a-1")], PATTERN, confirmed_at=now)
    board = Board(HostState(PATTERN, snapshot), stale_after=0.3)
    assert board.report().verdict("a").is_healthy

    report = board.wait(lambda report: report.fault is None, 60)

    assert report.verdict("a").code is Code.ENGINE_FAULTY
    assert now + 0.3 <= time.monotonic() < now + 30


def test_closing_ends_all_waiting(host: Host) -> None:
    waiting = [in_background(lambda: host.board.wait(always, 1000)) for _ in range(20)]

    host.board.close()
    for thread in waiting:
        thread.join(60)

    assert not any(thread.is_alive() for thread in waiting)


def test_there_is_a_report_before_there_is_a_snapshot() -> None:
    board = Board(HostState(PATTERN), stale_after=STALE_AFTER)

    assert board.report().fault is not None
    assert board.report().verdict("a").code is Code.ENGINE_FAULTY
    assert board.age is None


def test_the_age_of_the_snapshot(host: Host) -> None:
    host.now = 103.5

    assert host.board.age == 3.5


# --- never older than what another worker has answered


def test_an_answer_waits_for_what_the_leader_has_published(host: Host) -> None:
    host.latest = 1
    found: list[Report] = []
    asking = in_background(lambda: found.append(host.board.report()))
    state, affected = host.board.state.after(Message(drains=Drains({"a": Mark(0, None, "")})))
    # Some time passes, in which nothing may be answered.
    asking.join(0.1)
    assert not found

    host.board.publish(replace(state, position=1), affected)
    asking.join(60)

    assert found[0].verdict("a").code is Code.DRAINED


def test_a_client_that_waits_is_not_answered_from_an_older_state(host: Host) -> None:
    known = host.board.report().etag
    host.fail()
    host.latest = 2
    found: list[Report] = []
    waiting = in_background(
        lambda: found.append(host.board.wait(lambda report: report.etag == known, 1000))
    )
    waiting.join(0.1)
    assert not found

    host.apply(Message(drains=Drains({"a": Mark(0, None, "")})))
    waiting.join(60)

    assert found[0].verdict("a").code is Code.DRAINED


def test_what_never_comes_is_waited_for_once(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board_module, "LONGEST_CATCH_UP", 0.2)
    host.latest = 1
    began = time.monotonic()
    assert host.board.report().verdict("a").is_healthy
    assert time.monotonic() - began >= 0.2
    monkeypatch.setattr(board_module, "LONGEST_CATCH_UP", 1000)

    assert host.board.report().verdict("a").is_healthy

    host.latest = 2
    host.board.close()
    assert host.board.report().verdict("a").is_healthy
