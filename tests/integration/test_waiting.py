"""Answers that wait for a change: `If-None-Match` with `Prefer: wait`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from container_healthcheck.observers.drain_folder import DrainFolder
from sandbox.crowd import Crowd
from sandbox.private_engine import PrivateEngine
from sandbox.running_service import RunningService
from sandbox.waiting import wait_for

Run = Callable[..., Any]


@pytest.fixture
def quiet(engine: PrivateEngine) -> Iterator[RunningService]:
    """A service that only this test's changes reach: it sees names that begin with `quiet.`."""
    with RunningService(engine.url, name_pattern=r"quiet.{app_code}-\d+") as service:
        yield service


@pytest.fixture(scope="module")
def unchanging(engine: PrivateEngine) -> Iterator[RunningService]:
    """A service that no change reaches: no container has such a name."""
    with RunningService(engine.url, name_pattern=r"unchanging.{app_code}-\d+") as service:
        wait_for(lambda: service.get("/ready").status == 200, "the service to be ready")
        yield service


def etag(service: RunningService) -> str:
    return service.get("/apps/health").headers["ETag"]


def waiting(etag: str, seconds: int) -> dict[str, str]:
    return {"If-None-Match": etag, "Prefer": f"wait={seconds}"}


def test_without_a_known_etag_the_answer_comes_at_once(unchanging: RunningService) -> None:
    answer = unchanging.get("/apps/health", headers={"Prefer": "wait=30"})

    assert answer.status == 200
    assert answer.headers["Preference-Applied"] == "wait=30"


def test_a_known_etag_without_wait_is_not_modified(unchanging: RunningService) -> None:
    known = etag(unchanging)

    answer = unchanging.get("/apps/health", headers={"If-None-Match": known})

    assert (answer.status, answer.body) == (304, b"")
    assert answer.headers["ETag"] == known
    assert answer.headers["Cache-Control"] == "no-store"


def test_a_weak_etag_is_known_as_well(unchanging: RunningService) -> None:
    """nginx makes an ETag weak when it compresses an answer."""
    answer = unchanging.get("/apps/health", headers={"If-None-Match": f"W/{etag(unchanging)}"})

    assert answer.status == 304


@pytest.mark.parametrize("preference", ["wait=1", "respond-async, wait=1", 'Wait = "1"'])
def test_nothing_new_is_said_when_the_time_is_up(
    unchanging: RunningService, preference: str
) -> None:
    headers = {"If-None-Match": etag(unchanging), "Prefer": preference}
    began = time.monotonic()

    answer = unchanging.get("/apps/health", headers=headers)

    assert answer.status == 304
    assert time.monotonic() - began >= 0.9


@pytest.mark.parametrize("preference", ["wait=-1", "wait=x", "wait", "waiter=9", ""])
def test_a_preference_that_makes_no_sense_is_passed_over(
    unchanging: RunningService, preference: str
) -> None:
    headers = {"If-None-Match": etag(unchanging), "Prefer": preference}

    answer = unchanging.get("/apps/health", headers=headers)

    assert answer.status == 304
    assert "Preference-Applied" not in answer.headers


def test_a_wait_is_at_most_thirty_seconds(unchanging: RunningService) -> None:
    answer = unchanging.get("/apps/health", headers={"Prefer": "wait=999999"})

    assert answer.headers["Preference-Applied"] == "wait=30"


@pytest.mark.parametrize("size", [50, 1000])
def test_every_client_hears_of_a_change(
    quiet: RunningService, run: Run, app_code: str, size: int
) -> None:
    crowd = Crowd(quiet, size, etag(quiet), 30)
    wait_for(crowd.is_settled, "the clients to wait")

    run(f"quiet.{app_code}-1")
    answers = crowd.listen()

    assert [answer.split()[1] for answer in answers] == [b"200"] * size
    assert all(f'"message":{{"{app_code}":'.encode() in answer for answer in answers)


def test_a_check_is_quick_beside_a_thousand_waiting_clients(
    quiet: RunningService, app_code: str
) -> None:
    crowd = Crowd(quiet, 1000, etag(quiet), 30)
    wait_for(crowd.is_settled, "the clients to wait")

    assert quiet.code(app_code) == 12

    DrainFolder(Path(quiet.folder.name)).add(app_code, "", None)
    assert {answer.split()[1] for answer in crowd.listen()} == {b"200"}


def test_waiting_clients_are_let_go_when_the_service_ends(quiet: RunningService) -> None:
    crowd = Crowd(quiet, 50, etag(quiet), 30)
    wait_for(crowd.is_settled, "the clients to wait")
    began = time.monotonic()

    assert quiet.stop() == 0

    assert {answer.split()[1] for answer in crowd.listen()} == {b"304"}
    assert time.monotonic() - began < 25


def test_a_drain_is_heard_of_too(quiet: RunningService, run: Run, app_code: str) -> None:
    run(f"quiet.{app_code}-1")
    quiet.settle(app_code, 0)
    crowd = Crowd(quiet, 1, etag(quiet), 30)
    wait_for(crowd.is_settled, "the client to wait")

    DrainFolder(Path(quiet.folder.name)).add(app_code, "", None)

    assert crowd.listen()[0].endswith(f'{{"{app_code}":15}}}}'.encode())
