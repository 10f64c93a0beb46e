"""One truth a host: whichever worker answers, whoever has died, and whatever was restarted."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from sandbox.private_engine import PrivateEngine
from sandbox.running_service import RunningService
from sandbox.waiting import free_port, wait_for, wait_until
from tests.integration.appo import Appo

Run = Callable[..., Any]
Start = Callable[..., RunningService]


@pytest.fixture
def appo() -> Iterator[Appo]:
    with Appo() as appo:
        yield appo


@pytest.fixture
def start(engine: PrivateEngine, appo: Appo, tmp_path: Path) -> Iterator[Start]:
    """Starts services that probe, at one address and with one state folder."""
    begun: list[RunningService] = []
    bind = f"127.0.0.1:{free_port()}"

    def begin(**options: Any) -> RunningService:
        given = {"probe_interval": 0.3, "probe_fall": 1, "bind": bind, "workers": 2}
        given["state_dir"] = tmp_path
        service = RunningService(engine.url, probe_url=appo.url, **{**given, **options})
        begun.append(service)
        service.start()
        return service

    yield begin
    for service in begun:
        service.__exit__()


@contextmanager
def watched(service: RunningService, app_code: str) -> Iterator[list[int]]:
    """Asks all the time, on a new connection each; a service that is away is passed over."""
    codes: list[int] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            try:
                codes.append(service.code(app_code))
            except (OSError, HTTPException):
                # Also of an answer that a killed worker had begun.
                time.sleep(0.01)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield codes
    finally:
        over.set()
        thread.join()


def is_failing(service: RunningService, appo: Appo, app_code: str) -> None:
    """Brings the app to 14, on every worker."""
    appo.fails(app_code)
    service.settle(app_code, 14)


# --- each app is asked once


@pytest.mark.parametrize("workers", [1, 8])
def test_each_app_is_asked_once_an_interval(
    start: Start, appo: Appo, run: Run, app_code: str, workers: int
) -> None:
    appo.serves(app_code)
    run(f"{app_code}-1")
    service = start(workers=workers, probe_interval=1)
    service.settle(app_code, 0)
    appo.is_asked(app_code, 3)
    before = len(appo.asked_at(app_code))
    appo.is_asked(app_code, 8)

    times = appo.asked_at(app_code)[before:]

    # A machine that is late asks less often; each worker for itself would ask as often as there
    # are workers.
    assert len(times) - 1 <= (times[-1] - times[0]) + 1.5


def test_all_workers_answer_alike_however_the_app_flickers(
    start: Start, appo: Appo, run: Run, app_code: str
) -> None:
    appo.serves(app_code)
    run(f"{app_code}-1")
    service = start(workers=4)
    service.settle(app_code, 0)

    for change, code in ((appo.fails, 14), (appo.serves, 0)) * 2:
        change(app_code)
        wait_until(lambda: service.code(app_code), code.__eq__, f"a worker to say {code}")
        # Once one worker has said it, all do.
        assert {service.code(app_code) for _ in range(100)} == {code}

    changes = service.get(f"/changes?app_code={app_code}").json["message"]
    assert [each["new"] for each in changes[:4]] == [0, 14, 0, 14]


# --- what was seen outlives who saw it


def test_a_killed_worker_takes_nothing_along(
    start: Start, appo: Appo, run: Run, app_code: str
) -> None:
    appo.serves(app_code)
    run(f"{app_code}-1")
    service = start(workers=2)
    is_failing(service, appo, app_code)

    with watched(service, app_code) as codes:
        for worker in service.workers():
            os.kill(worker, signal.SIGKILL)
            wait_for(
                lambda gone=worker: gone not in service.workers() and len(service.workers()) == 2,  # type: ignore[misc]
                "another worker in its place",
            )
            appo.is_asked(app_code, 3)
            service.settle(app_code, 14)
    assert set(codes) == {14}

    appo.serves(app_code)
    service.settle(app_code, 0)
    assert service.log_text().count(f"{app_code}: 0 -> 14") == 1
    assert service.log_text().count(f"{app_code}: 14 -> 0") == 1


def test_a_reload_takes_nothing_along(start: Start, appo: Appo, run: Run, app_code: str) -> None:
    appo.serves(app_code)
    run(f"{app_code}-1")
    service = start(workers=2)
    is_failing(service, appo, app_code)

    with watched(service, app_code) as codes:
        old = set(service.workers())
        assert service.process is not None
        service.process.send_signal(signal.SIGHUP)
        wait_for(
            lambda: not old & set(service.workers()) and len(service.workers()) == 2,
            "new workers",
        )
        appo.is_asked(app_code, 3)
        service.settle(app_code, 14)

    assert set(codes) == {14}
    assert service.log_text().count(f"{app_code}: ") == service.log_text().count("0 -> 14")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_restart_takes_nothing_along(
    start: Start, appo: Appo, run: Run, app_code: str, how: signal.Signals
) -> None:
    appo.serves(app_code)
    run(f"{app_code}-1")
    # Long enough that a machine under load has it started again within three of them.
    service = start(workers=2, probe_interval=10, probe_fall=1)
    container = run(f"{app_code}new-1")
    service.settle(f"{app_code}new", 14)
    since = since_of(service, f"{app_code}new")
    workers = service.workers()

    service.stop(how)
    for worker in workers if how is signal.SIGKILL else ():
        wait_for(lambda gone=worker: not Path(f"/proc/{gone}").exists(), "the end of the workers")  # type: ignore[misc]
    again = start(workers=2, probe_interval=10, probe_fall=1)

    for _ in range(20):
        assert again.code(f"{app_code}new") == 14
    assert since_of(again, f"{app_code}new") == since
    appo.serves(f"{app_code}new")
    again.settle(f"{app_code}new", 0)
    assert f"{app_code}new: still 14: " in again.log_text()
    container.remove(force=True)


def since_of(service: RunningService, app_code: str) -> float:
    """Since when the app's code is what it is; every worker must say the same."""
    answers = (service.get("/apps").json["message"] for _ in range(20))
    found = {app["since"] for apps in answers for app in apps if app["app_code"] == app_code}
    (since,) = found
    return float(since)


# --- what cannot be kept or used harms nothing


def test_with_no_place_to_write_the_workers_still_agree(
    start: Start, appo: Appo, run: Run, app_code: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    appo.serves(app_code)
    run(f"{app_code}-1")
    service = start(workers=4, state_dir=tmp_path / "file" / "state")
    is_failing(service, appo, app_code)
    appo.is_asked(app_code, 3)

    service.settle(app_code, 14)
    assert service.log_text().count("will not survive a restart") == 1


FULL = """
mount -t tmpfs -o size=64k none "$0" && { cat /dev/zero >"$0/filling" || :; } 2>/dev/null
exec "$@"
"""


def test_a_full_disk_is_said_once_and_the_workers_still_agree(
    start: Start, appo: Appo, run: Run, app_code: str, tmp_path: Path
) -> None:
    full = tmp_path / "full"
    full.mkdir()
    appo.serves(app_code)
    run(f"{app_code}-1")
    namespace = ("unshare", "--mount", "sh", "-c", FULL, str(full))
    service = start(workers=2, state_dir=full, namespace=namespace)
    is_failing(service, appo, app_code)
    appo.is_asked(app_code, 3)

    service.settle(app_code, 14)
    said = re.findall(r"full/state-\S+ cannot be written: No space left", service.log_text())
    assert len(said) == 1
    # Nothing half written stays behind.
    assert service.process is not None
    assert os.listdir(f"/proc/{service.process.pid}/root{full}") == ["filling"]


def test_what_is_damaged_counts_for_nothing(
    start: Start, appo: Appo, run: Run, app_code: str, tmp_path: Path
) -> None:
    appo.serves(app_code)
    run(f"{app_code}-1")
    service = start(workers=2, probe_interval=300)
    run(f"{app_code}new-1")
    service.settle(f"{app_code}new", 14)
    service.stop()
    (kept,) = tmp_path.glob("state-*.jsonl")
    kept.write_text(kept.read_text()[:-5])

    again = start(workers=2, probe_interval=300)

    again.settle(f"{app_code}new", 0)
    assert again.log_text().count("apps are presumed healthy until they are probed") == 1


def test_two_services_in_one_folder_do_not_disturb_each_other(
    start: Start, appo: Appo, run: Run, app_code: str
) -> None:
    appo.serves(app_code)
    run(f"{app_code}-1")
    first = start(probe_interval=300)
    run(f"{app_code}new-1")
    first.settle(f"{app_code}new", 14)

    second = start(probe_interval=300, bind=f"127.0.0.1:{free_port()}")

    second.settle(f"{app_code}new", 0)
    first.settle(f"{app_code}new", 14)


# --- a start needs a pass of its own


def test_a_start_needs_a_pass_on_every_worker_and_is_one_change(
    start: Start, appo: Appo, run: Run, app_code: str
) -> None:
    appo.serves(app_code)
    container = run(f"{app_code}-1")
    service = start(workers=4)
    service.settle(app_code, 0)

    appo.fails(app_code)
    container.kill()
    service.settle(app_code, 13)
    with watched(service, app_code) as codes:
        container.start()
        service.settle(app_code, 14)
        appo.is_asked(app_code, 3)
        service.settle(app_code, 14)
    assert set(codes) == {13, 14}

    appo.serves(app_code)
    service.settle(app_code, 0)
    lines = [line for line in service.log_text().splitlines() if f" {app_code}: " in line]
    assert len([line for line in lines if "-> 0: " in line]) == 1


def test_as_many_passes_as_probe_rise_are_needed(
    start: Start, appo: Appo, run: Run, app_code: str
) -> None:
    appo.serves(app_code)
    run(f"{app_code}-1")
    service = start(workers=2, probe_rise=4)
    service.settle(app_code, 0)
    is_failing(service, appo, app_code)
    asked = len(appo.asked_at(app_code))

    appo.serves(app_code)
    service.settle(app_code, 0)

    assert len(appo.asked_at(app_code)) - asked >= 4


def test_the_last_probe_is_the_same_whichever_worker_answers(
    start: Start, appo: Appo, run: Run, app_code: str
) -> None:
    appo.serves(app_code)
    run(f"{app_code}-1")
    service = start(workers=4, probe_interval=5, probe_paths=f"{app_code}none=-")
    run(f"{app_code}none-1")

    def probes(name: str) -> list[Any]:
        answers = (service.get("/apps").json["message"] for _ in range(20))
        return [app["probe"] for apps in answers for app in apps if app["app_code"] == name]

    first = wait_until(
        lambda: probes(app_code),
        lambda found: len(found) == 20 and all(found) and all(each == found[0] for each in found),
        "the same probe on every worker",
    )[0]
    assert list(first) == ["passed", "seen", "asked_at", "seconds"]
    assert first["passed"] is True and first["seen"] is None
    assert abs(time.time() - first["asked_at"]) < 60 and first["seconds"] < 60
    assert set(probes(f"{app_code}none")) == {None}
