"""The board: reports are remade when a source changes, and only then; waiting ends in time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from container_healthcheck.board import Board, Report
from container_healthcheck.model.snapshot import draw
from container_healthcheck.model.verdict import Code
from container_healthcheck.observers.drain_folder import Drains, Mark
from tests.unit.containers import PATTERN, container

STALE_AFTER = 15.0


class Sources:
    """What a board is given."""

    def __init__(self) -> None:
        self.now = 100.0
        self.picture = draw([container("a-1"), container("b-1")], PATTERN, confirmed_at=100)
        self.drains = Drains()

    def board(self, **options: Any) -> Board:
        board = Board(
            lambda: self.drains, stale_after=STALE_AFTER, clock=lambda: self.now, **options
        )
        board.show_picture(self.picture)
        return board


@pytest.fixture
def sources() -> Sources:
    return Sources()


@pytest.fixture
def running(sources: Sources) -> Iterator[Board]:
    board = sources.board()
    board.start()
    yield board
    board.stop()


def test_a_report_is_kept_until_a_source_changes(sources: Sources) -> None:
    board = sources.board()
    report = board.report()

    assert board.report() is report
    board.show_failing({"a": "502"})
    assert board.report() is not report
    assert board.report().verdict("a").code is Code.NOT_SERVING


def test_a_report_ends_when_its_picture_grows_stale(sources: Sources) -> None:
    board = sources.board()
    assert board.report().verdict("a").is_healthy

    sources.now = 100 + STALE_AFTER
    report = board.report()

    assert report.verdict("a").code is Code.ENGINE_FAULTY
    assert board.report() is report


def test_a_check_is_worked_out_once(sources: Sources) -> None:
    report = sources.board().report()

    assert report.check("a") is report.check("a")


def test_what_callers_make_up_is_not_kept(sources: Sources) -> None:
    report = sources.board().report()

    for number in range(1000):
        code, body = report.check(f"x{number}")
        assert code is Code.NO_CONTAINER
        assert b'"code":12' in body

    assert not report._checks


def test_all_codes_include_drained_apps_without_containers(sources: Sources) -> None:
    sources.drains = Drains({"c": Mark(0, None, "later")})

    body = sources.board().report().codes_body

    assert body == b'{"code":0,"status":"ok","message":{"a":0,"b":0,"c":15}}'


def test_equal_codes_have_equal_etags(sources: Sources) -> None:
    before = sources.board().report().etag
    sources.picture = draw(
        [container("a-1", status="Up 6 days"), container("b-7")], PATTERN, confirmed_at=100
    )
    assert sources.board().report().etag == before

    board = sources.board()
    board.show_failing({"a": "502"})
    assert board.report().etag != before


def never(_: Report) -> bool:
    return True


def test_waiting_ends_at_once_when_the_report_is_news(running: Board) -> None:
    assert running.wait(lambda _: False, 1000).verdict("a").is_healthy


def test_without_time_there_is_no_waiting(running: Board) -> None:
    assert running.wait(never, 0).verdict("a").is_healthy


def in_background(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def a_probe_fails(_: Sources, board: Board) -> None:
    board.show_failing({"a": "502"})


def a_picture_comes(_: Sources, board: Board) -> None:
    board.show_picture(draw([container("a-1", state="exited")], PATTERN, confirmed_at=100))


def a_mark_is_made(sources: Sources, _: Board) -> None:
    sources.drains = Drains({"a": Mark(0, None, "")})


def the_picture_grows_stale(sources: Sources, _: Board) -> None:
    sources.now = 100 + STALE_AFTER


@pytest.mark.parametrize(
    "change", [a_probe_fails, a_picture_comes, a_mark_is_made, the_picture_grows_stale]
)
def test_waiting_ends_when_a_verdict_changes(
    sources: Sources, running: Board, change: Callable[[Sources, Board], None]
) -> None:
    known = running.report()
    found: list[Report] = []
    waiting = in_background(
        lambda: found.append(running.wait(lambda report: report.etag == known.etag, 1000))
    )

    change(sources, running)
    waiting.join(60)

    assert not found[0].verdict("a").is_healthy


def test_stopping_ends_all_waiting(sources: Sources) -> None:
    board = sources.board()
    board.start()
    waiting = [in_background(lambda: board.wait(never, 1000)) for _ in range(20)]

    board.stop()
    for thread in waiting:
        thread.join(60)

    assert not any(thread.is_alive() for thread in waiting)


def test_the_board_goes_on_when_a_listener_fails(
    sources: Sources, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[Report] = []

    def listen(report: Report) -> None:
        seen.append(report)
        raise RuntimeError("the listener failed")

    caplog.set_level(logging.ERROR)
    board = sources.board(on_report=listen)
    board.show_failing({"a": "502"})

    assert len(seen) == 2
    assert "a listener to reports stumbled" in caplog.text


def test_there_is_a_report_before_there_is_a_picture(sources: Sources) -> None:
    report = Board(lambda: sources.drains, stale_after=STALE_AFTER).report()

    assert report.fault is not None
    assert report.verdict("a").code is Code.ENGINE_FAULTY
