"""One worker observes and all answer, whatever happens to workers, Docker and the disk."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from sandbox.private_engine import PrivateEngine
from sandbox.proxy import EngineProxy
from sandbox.running_service import RunningService
from sandbox.waiting import free_port, wait_for, wait_until
from tests.conftest import give_up
from tests.integration.appo import Appo
from tests.integration.test_one_truth import watched

Run = Callable[..., Any]
RARE: dict[str, Any] = {"resync_interval": 300, "stale_after": 600}


@pytest.fixture
def appo() -> Iterator[Appo]:
    with Appo() as appo:
        yield appo


def becomes(service: RunningService, app_code: str, code: int) -> None:
    wait_until(lambda: service.code(app_code), code.__eq__, f"{app_code} to be {code}")


@contextmanager
def following(service: RunningService, app_code: str) -> Iterator[list[int]]:
    """The codes of an app as a client sees them that waits for changes, as a gateway does.

    Each request is on a new connection, and so is answered by any worker. Equal codes in a row are
    noted once.
    """
    codes: list[int] = []
    over = threading.Event()

    def follow() -> None:
        etag = ""
        while not over.is_set():
            headers = {"Prefer": "wait=2", **({"If-None-Match": etag} if etag else {})}
            try:
                answer = service.get("/apps/health", headers=headers)
            except (OSError, HTTPException):
                continue
            if answer.status == 200:
                etag = answer.headers["ETag"]
                code = answer.json["message"].get(app_code, 12)
                if code != (codes[-1] if codes else None):
                    codes.append(code)

    threads = [threading.Thread(target=follow) for _ in range(1)]
    for thread in threads:
        thread.start()
    try:
        yield codes
    finally:
        over.set()
        for thread in threads:
            thread.join()


def sees(codes: list[int], code: int) -> None:
    wait_for(lambda: codes and codes[-1] == code, f"the client to see {code}")


# --- never back in time


def check_that_nobody_goes_back(
    engine: PrivateEngine, appo: Appo, run: Run, app_code: str, workers: int, times: int
) -> None:
    appo.serves(app_code)
    container = run(f"{app_code}-1")
    with RunningService(
        engine.url, workers=workers, probe_url=appo.url, probe_interval=0.2, probe_fall=1
    ) as service:
        service.settle(app_code, 0)
        with following(service, app_code) as codes:
            sees(codes, 0)
            for _ in range(times):
                appo.fails(app_code)
                sees(codes, 14)
                appo.serves(app_code)
                sees(codes, 0)
            # Each change is seen, once and in its order.
            assert codes == [0, 14] * times + [0]
            del codes[:-1]
            drains = Path(service.folder.name) / "drains"
            drains.mkdir(exist_ok=True)
            for _ in range(times):
                mark = drains / f"{app_code}.json"
                mark.write_text('{"since": 1, "until": null, "reason": ""}')
                sees(codes, 15)
                mark.unlink()
                sees(codes, 0)
            assert codes == [0, 15] * times + [0]
            del codes[:-1]
            for _ in range(times):
                container.kill()
                sees(codes, 13)
                container.start()
                sees(codes, 0)
            # After a start the app needs a pass, which may come before the client has asked again.
            assert re.fullmatch(r"0(d(f?)0)*", _letters(codes)), codes
            del codes[:-1]
            for number in range(times):
                container.restart(timeout=0)
                wait_for(
                    lambda count=number: _restarts(service, app_code) > count,  # type: ignore[misc]
                    "the restart to be recorded",
                )
                sees(codes, 0)
            assert re.fullmatch(r"0(d?f?0)*", _letters(codes)), codes


def _letters(codes: list[int]) -> str:
    return "".join({0: "0", 13: "d", 14: "f"}.get(code, "?") for code in codes)


def _restarts(service: RunningService, app_code: str) -> int:
    return service.log_text().count(f" {app_code}: 13 -> ")


@pytest.mark.parametrize("workers", [4])
def test_no_client_goes_back(
    engine: PrivateEngine, appo: Appo, run: Run, app_code: str, workers: int
) -> None:
    check_that_nobody_goes_back(engine, appo, run, app_code, workers, times=8)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 4, 8])
def test_no_client_goes_back_a_hundred_times(
    engine: PrivateEngine, appo: Appo, run: Run, app_code: str, workers: int
) -> None:
    check_that_nobody_goes_back(engine, appo, run, app_code, workers, times=100)


# --- Docker hangs while workers change


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("writable", [True, False])
def test_while_docker_hangs_workers_may_change(
    proxy: EngineProxy, run: Run, app_code: str, tmp_path: Path, workers: int, writable: bool
) -> None:
    run(f"{app_code}-1")
    dead = run(f"{app_code}dead-1")
    dead.kill()
    (tmp_path / "file").touch()
    settings: dict[str, Any] = {
        "workers": workers,
        "state_dir": tmp_path / "state" if writable else tmp_path / "file" / "state",
        "docker_timeout": 0.5,
        "resync_interval": 300,
        "stale_after": 600,
    }
    (tmp_path / "state").mkdir()
    with RunningService(proxy.url, **settings) as service:
        service.settle(app_code, 0)
        service.settle(f"{app_code}dead", 13)
        proxy.lists_flow.clear()
        with watched(service, app_code) as codes, watched(service, f"{app_code}dead") as others:
            service.reload()
            service.settle(app_code, 0)
            service.settle(f"{app_code}dead", 13)
            for worker in service.workers() if writable or workers > 1 else ():
                kill_worker(service, worker)
                service.settle(app_code, 0)
                service.settle(f"{app_code}dead", 13)
        assert set(codes) == {0}
        assert set(others) == {13}
        proxy.lists_flow.set()


def kill_worker(service: RunningService, worker: int) -> None:
    count = len(service.workers())
    os.kill(worker, signal.SIGKILL)
    wait_for(
        lambda: worker not in service.workers() and len(service.workers()) == count,
        "another worker in its place",
    )


@pytest.mark.parametrize(
    "how", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGKILL]
)
def test_while_docker_hangs_the_service_may_be_restarted(
    proxy: EngineProxy, run: Run, app_code: str, tmp_path: Path, how: signal.Signals
) -> None:
    run(f"{app_code}-1")
    settings: dict[str, Any] = {
        "bind": f"127.0.0.1:{free_port()}",
        "state_dir": tmp_path,
        "docker_timeout": 0.5,
        "resync_interval": 5,
        "stale_after": 30,
    }
    with RunningService(proxy.url, **settings) as service:
        service.settle(app_code, 0)
        wait_for(lambda: app_code in saved(tmp_path), "the state to be saved")
        proxy.lists_flow.clear()
        workers = service.workers()
        service.stop(how)
        wait_for(lambda: not any(Path(f"/proc/{each}").exists() for each in workers), "its end")
        service.start()

        service.settle(app_code, 0)
        # What nobody confirms is not answered from for ever.
        service.settle(app_code, 11)
        proxy.lists_flow.set()
        service.settle(app_code, 0)


def saved(folder: Path) -> str:
    return "".join(each.read_text() for each in folder.glob("state-*.jsonl"))


# --- a worker that is frozen


@pytest.mark.parametrize("which", ["leader", "follower"])
def test_one_frozen_worker_stops_nothing(
    engine: PrivateEngine, appo: Appo, run: Run, app_code: str, which: str
) -> None:
    appo.serves(app_code)
    container = run(f"{app_code}-1")
    with RunningService(
        engine.url, workers=3, probe_url=appo.url, probe_interval=0.5, probe_fall=1, **RARE
    ) as service:
        service.settle(app_code, 0)
        leader = service.leader()
        frozen = (
            leader
            if which == "leader"
            else next(each for each in service.workers() if each != leader)
        )
        os.kill(frozen, signal.SIGSTOP)
        try:
            appo.fails(app_code)
            others_say(service, frozen, app_code, 14)
            container.kill()
            others_say(service, frozen, app_code, 13)
            appo.serves(app_code)
            container.start()
            others_say(service, frozen, app_code, 0)
        finally:
            # It may have been replaced meanwhile: gunicorn waits ten seconds for a worker.
            if frozen in service.workers():
                os.kill(frozen, signal.SIGCONT)
        service.settle(app_code, 0)
        changes = service.get(f"/changes?app_code={app_code}").json["message"]
        codes = [each["new"] for each in reversed(changes)]
        assert codes[:3] == [14, 13, 14] or codes[:3] == [14, 13, 0], codes


def others_say(service: RunningService, frozen: int, app_code: str, code: int) -> None:
    """Waits until a worker that is not frozen says so; the frozen one may get the connection."""

    def ask() -> int:
        try:
            return service.get(f"/apps/health/{app_code}", timeout=1).code
        except (OSError, HTTPException):
            return -1

    wait_until(ask, code.__eq__, f"{app_code} to be {code} although {frozen} is frozen")


def test_a_leader_that_wakes_publishes_nothing(
    engine: PrivateEngine, run: Run, app_code: str
) -> None:
    container = run(f"{app_code}-1")
    with RunningService(engine.url, workers=2, **RARE) as service:
        service.settle(app_code, 0)
        frozen = service.leader()
        os.kill(frozen, signal.SIGSTOP)
        wait_for(lambda: service.leader() != frozen, "another leader")
        container.kill()
        others_say(service, frozen, app_code, 13)
        container.remove()
        others_say(service, frozen, app_code, 12)
        with watched(service, app_code) as codes:
            if frozen in service.workers():
                os.kill(frozen, signal.SIGCONT)
            service.settle(app_code, 12)
        assert set(codes) == {12}


# --- a disk that hangs


FROZEN_DISK = """
mount -o loop "$0" "$1" && mkdir -p "$1/state" && shift && exec "$@"
"""


@pytest.fixture
def disk(tmp_path: Path) -> tuple[Path, Path]:
    """A disk in a file, and where to mount it."""
    image, place = tmp_path / "disk", tmp_path / "mounted"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    trial = ["unshare", "--mount", "mount", "-o", "loop", str(image), str(place)]
    if subprocess.run(trial, capture_output=True, check=False).returncode:
        give_up("no loop device can be mounted here")
    return image, place


def test_a_disk_that_hangs_delays_nothing(
    engine: PrivateEngine, appo: Appo, run: Run, app_code: str, disk: tuple[Path, Path]
) -> None:
    image, place = disk
    appo.serves(app_code)
    container = run(f"{app_code}-1")
    with RunningService(
        engine.url,
        workers=2,
        probe_url=appo.url,
        probe_interval=0.5,
        probe_fall=1,
        state_dir=place / "state",
        namespace=("unshare", "--mount", "sh", "-c", FROZEN_DISK, str(image), str(place)),
        **RARE,
    ) as service:
        service.settle(app_code, 0)
        assert service.process is not None
        inside = ["nsenter", f"--mount=/proc/{service.process.pid}/ns/mnt", "fsfreeze"]
        subprocess.run([*inside, "--freeze", str(place)], check=True)
        try:
            appo.fails(app_code)
            service.settle(app_code, 14)
            appo.serves(app_code)
            service.settle(app_code, 0)
            container.kill()
            service.settle(app_code, 13)
            wait_for(lambda: "the disk does not answer" in service.log_text(), "a line about it")
            container.start()
            service.settle(app_code, 0)
            # A thread of the leader waits for the disk, so that not even SIGKILL ends it.
            leader = service.leader()
            os.kill(leader, signal.SIGKILL)
            appo.fails(app_code)
            others_say(service, leader, app_code, 14)
            wait_for(lambda: service.leader() != leader, "another leader")
        finally:
            subprocess.run([*inside, "--unfreeze", str(place)], check=True)
        assert service.log_text().count("cannot be written: the disk does not answer") <= 2


# --- bad news counts at once


@pytest.mark.parametrize("lists", ["hang", "fail"])
def test_bad_news_counts_whatever_the_list_does(
    proxy: EngineProxy, run: Run, app_code: str, lists: str
) -> None:
    containers = {
        what: run(f"{app_code}{what}-1", **(HEALTHCHECK if what == "unhealthy" else {}))
        for what in ("dies", "pauses", "goes", "unhealthy", "stays")
    }
    with RunningService(proxy.url, workers=2, docker_timeout=3, **RARE) as service:
        for what in containers:
            service.settle(f"{app_code}{what}", 0)
        if lists == "hang":
            proxy.lists_flow.clear()
        else:
            proxy.meddle_lists = refuse
        containers["dies"].kill()
        service.settle(f"{app_code}dies", 13)
        containers["pauses"].pause()
        service.settle(f"{app_code}pauses", 13)
        containers["goes"].remove(force=True)
        becomes_one_of(service, f"{app_code}goes", {12, 13})
        containers["unhealthy"].exec_run(["mkdir", "-p", "/tmp/bad"])
        service.settle(f"{app_code}unhealthy", 13)

        # Good news waits for the list.
        containers["dies"].start()
        service.settle(f"{app_code}dies", 13)
        service.settle(f"{app_code}stays", 0)
        proxy.meddle_lists = bytes
        proxy.lists_flow.set()
        service.settle(f"{app_code}dies", 0)
        service.settle(f"{app_code}goes", 12)
        containers["pauses"].unpause()


HEALTHCHECK: dict[str, Any] = {
    "healthcheck": {
        "test": ["CMD", "test", "!", "-e", "/tmp/bad"],
        "interval": 500_000_000,
        "timeout": 30_000_000_000,
        "retries": 1,
    }
}


def refuse(_: bytes) -> bytes:
    raise ConnectionError("no list")


def becomes_one_of(service: RunningService, app_code: str, codes: set[int]) -> None:
    wait_until(lambda: service.code(app_code), codes.__contains__, f"{app_code} to be {codes}")


# --- reloads


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_no_answer_is_lost_or_wrong_while_workers_are_replaced(
    engine: PrivateEngine, run: Run, app_code: str, workers: int
) -> None:
    run(f"{app_code}-1")
    with RunningService(engine.url, workers=workers) as service:
        service.settle(app_code, 0)
        failures: list[object] = []
        answers: list[int] = []
        over = threading.Event()

        def keep_asking() -> None:
            while not over.is_set():
                try:
                    answers.append(service.code(app_code))
                except (OSError, HTTPException) as error:
                    failures.append(error)

        thread = threading.Thread(target=keep_asking)
        thread.start()
        for _ in range(3):
            service.reload()
        over.set()
        thread.join()
        assert not failures
        assert set(answers) == {0}


# --- one of everything


def test_docker_sees_one_service_whatever_the_number_of_workers(
    proxy: EngineProxy, appo: Appo, run: Run, app_code: str
) -> None:
    appo.serves(app_code)
    container = run(f"{app_code}-1")
    with RunningService(
        proxy.url, workers=4, probe_url=appo.url, probe_interval=1, **RARE
    ) as service:
        service.settle(app_code, 0)
        assert sum("/events" in each for each in proxy.requests) == 1
        assert sum("/containers/json" in each for each in proxy.requests) == 1
        lists = len([each for each in proxy.requests if "/containers/json" in each])
        container.pause()
        service.settle(app_code, 13)
        container.unpause()
        service.settle(app_code, 0)
        listed = [each for each in proxy.requests if "/containers/json" in each][lists:]
        # One for each of the two events; one more when the engine's list was behind its event.
        assert 2 <= len(listed) <= 2 + LATE_LISTS
        assert sum("/events" in each for each in proxy.requests) == 1


LATE_LISTS = 6


# --- what should not be there


def test_strangers_on_the_relay_learn_nothing_and_stop_nothing(
    engine: PrivateEngine, run: Run, app_code: str
) -> None:
    container = run(f"{app_code}-1")
    with RunningService(engine.url, workers=2, **RARE) as service:
        service.settle(app_code, 0)
        name = service.relay_name()
        number = int(name.rpartition("-")[2])
        taken = socket.socket(socket.AF_UNIX)
        taken.bind(f"\0{name.rpartition('-')[0]}-{number + 1}")
        taken.listen()
        stranger = socket.socket(socket.AF_UNIX)
        stranger.connect(f"\0{name}")
        try:
            reading = subprocess.run(
                [sys.executable, "-c", READ, name],
                capture_output=True,
                text=True,
                check=True,
            )
            assert reading.stdout == "0\n"
            # One that reads nothing delays nobody.
            for change, code in ((container.pause, 13), (container.unpause, 0)) * 5:
                change()
                service.settle(app_code, code)
            # The address of the next term is taken: the one after it will do.
            kill_worker(service, service.leader())
            container.kill()
            service.settle(app_code, 13)
            assert f"the address of term {number + 1} is taken" in service.log_text()
        finally:
            stranger.close()
            taken.close()


READ = """
import os, socket, sys
os.seteuid(65534)
with socket.socket(socket.AF_UNIX) as stranger:
    stranger.connect("\\0" + sys.argv[1])
    try:
        print(len(stranger.recv(1 << 20)))
    except ConnectionError:
        print(0)
"""


@pytest.mark.parametrize(("workers", "namespace"), [(64, ()), (2, ("prlimit", "--nofile=64:64"))])
def test_many_workers_and_few_descriptors(
    engine: PrivateEngine, run: Run, app_code: str, workers: int, namespace: tuple[str, ...]
) -> None:
    container = run(f"{app_code}-1")
    with RunningService(engine.url, workers=workers, namespace=namespace, **RARE) as service:
        becomes(service, app_code, 0)
        container.kill()
        becomes(service, app_code, 13)
        assert {service.code(app_code) for _ in range(4 * workers)} == {13}
