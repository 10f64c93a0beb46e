"""The board: reports are remade when a source changes, and only then; waiting ends in time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from container_healthcheck.board import Board
from container_healthcheck.model.drains import HOST, Drains, Mark
from container_healthcheck.model.report import Report
from container_healthcheck.model.snapshot import snapshot_of
from container_healthcheck.model.verdict import Code
from tests.unit.containers import PATTERN, container

STALE_AFTER = 15.0
BOTH = frozenset({"a", "b"})
A = frozenset({"a"})


class Sources:
    """What a board is given."""

    def __init__(self) -> None:
        self.now = 100.0
        self.snapshot = snapshot_of([container("a-1"), container("b-1")], PATTERN, confirmed_at=100)
        self.drains = Drains()

    def board(self, **options: Any) -> Board:
        board = Board(
            lambda: self.drains, stale_after=STALE_AFTER, clock=lambda: self.now, **options
        )
        board.publish(self.snapshot, {}, BOTH)
        return board

    def fail(self, board: Board, seen: str = "502") -> frozenset[str]:
        return board.publish(self.snapshot, {"a": seen}, A)


@pytest.fixture
def sources() -> Sources:
    return Sources()


def test_a_report_is_kept_until_a_source_changes(sources: Sources) -> None:
    board = sources.board()
    report = board.report()

    assert board.report() is report
    assert sources.fail(board) == A
    assert board.report().verdict("a").code is Code.NOT_SERVING


def test_a_report_ends_when_its_snapshot_grows_stale(sources: Sources) -> None:
    board = sources.board()
    assert board.report().verdict("a").is_healthy

    sources.now = 100 + STALE_AFTER
    assert board.look() == BOTH
    report = board.report()

    assert report.verdict("a").code is Code.ENGINE_FAULTY
    assert board.report() is report
    assert board.look() == frozenset()


def test_what_a_check_finds_first_is_told_at_the_next_look(sources: Sources) -> None:
    board = sources.board()
    sources.drains = Drains({"a": Mark(0, None, "")})

    assert board.report().verdict("a").code is Code.DRAINED
    assert board.look() == A
    assert board.look() == frozenset()


def test_an_answer_is_worked_out_once(sources: Sources) -> None:
    board = sources.board()
    answer = board.report().answer("b")
    body = answer.body

    sources.fail(board)

    assert board.report().answer("b") is answer
    assert answer.body is body


def test_only_touched_apps_are_judged_again(sources: Sources) -> None:
    board = sources.board()
    assert sources.fail(board) == A
    sources.drains = Drains({"b": Mark(0, None, "")})
    assert board.look() == {"b"}
    sources.drains = Drains({HOST: Mark(0, None, "")})
    assert board.look() == BOTH


def test_what_callers_make_up_is_not_kept(sources: Sources) -> None:
    report = sources.board().report()

    for number in range(1000):
        answer = report.answer(f"x{number}")
        assert answer.code is Code.NO_CONTAINER
        assert b'"code":12' in answer.body

    assert set(report.verdicts) == BOTH


def test_all_codes_include_drained_apps_without_containers(sources: Sources) -> None:
    sources.drains = Drains({"c": Mark(0, None, "later")})

    body = sources.board().report().codes_body

    assert body == b'{"code":0,"status":"ok","message":{"a":0,"b":0,"c":15}}'


def test_equal_codes_have_equal_etags(sources: Sources) -> None:
    board = sources.board()
    before = board.report().etag
    other = snapshot_of(
        [container("a-1", status="Up 6 days"), container("b-7")], PATTERN, confirmed_at=100
    )
    board.publish(other, {}, BOTH)
    assert board.report().etag == before

    sources.fail(board)
    failing = board.report().etag
    assert failing != before
    board.publish(sources.snapshot, {}, A)
    assert board.report().etag == before
    # The same, whatever way led there.
    fresh = Report(sources.snapshot, {"a": "502"}, now=100, stale_after=STALE_AFTER)
    assert fresh.etag == failing


def never(_: Report) -> bool:
    return True


def test_waiting_ends_at_once_when_the_report_is_news(sources: Sources) -> None:
    assert sources.board().wait(lambda _: False, 1000).verdict("a").is_healthy


def test_without_time_there_is_no_waiting(sources: Sources) -> None:
    assert sources.board().wait(never, 0).verdict("a").is_healthy


def in_background(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def a_probe_fails(sources: Sources, board: Board) -> None:
    sources.fail(board)


def a_snapshot_comes(_: Sources, board: Board) -> None:
    dead = snapshot_of([container("a-1", state="exited")], PATTERN, confirmed_at=100)
    board.publish(dead, {}, BOTH)


def a_mark_is_made(sources: Sources, board: Board) -> None:
    sources.drains = Drains({"a": Mark(0, None, "")})
    board.look()


def the_snapshot_grows_stale(sources: Sources, board: Board) -> None:
    sources.now = 100 + STALE_AFTER
    board.look()


@pytest.mark.parametrize(
    "change", [a_probe_fails, a_snapshot_comes, a_mark_is_made, the_snapshot_grows_stale]
)
def test_waiting_ends_when_a_verdict_changes(
    sources: Sources, change: Callable[[Sources, Board], None]
) -> None:
    board = sources.board()
    known = board.report()
    found: list[Report] = []
    waiting = in_background(
        lambda: found.append(board.wait(lambda report: report.etag == known.etag, 1000))
    )

    change(sources, board)
    waiting.join(60)

    assert not found[0].verdict("a").is_healthy
    assert board.waiting_clients == 0


def test_closing_ends_all_waiting(sources: Sources) -> None:
    board = sources.board()
    waiting = [in_background(lambda: board.wait(never, 1000)) for _ in range(20)]

    board.close()
    for thread in waiting:
        thread.join(60)

    assert not any(thread.is_alive() for thread in waiting)


def test_there_is_a_report_before_there_is_a_snapshot(sources: Sources) -> None:
    report = Board(lambda: sources.drains, stale_after=STALE_AFTER).report()

    assert report.fault is not None
    assert report.verdict("a").code is Code.ENGINE_FAULTY
