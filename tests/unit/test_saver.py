"""The saver: saves the latest state, delays nobody, and logs one line for each trouble."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from container_healthcheck.model.host_state import HostState
from container_healthcheck.storage import saver as saver_module
from container_healthcheck.storage.saver import Saver
from container_healthcheck.storage.state_file import StateFile
from sandbox.waiting import wait_for
from tests.unit.containers import PATTERN

STATES = [HostState(PATTERN, engine_time=number) for number in range(100)]


def wanted() -> bool:
    return True


class Disk:
    """Runs what may block, and hangs for as long as the test says."""

    def __init__(self) -> None:
        self.works = threading.Event()
        self.works.set()
        self.asked = 0

    def offload(self, work: Callable[[], None]) -> None:
        self.asked += 1
        assert self.works.wait(60)
        work()


@pytest.fixture
def disk() -> Iterator[Disk]:
    disk = Disk()
    yield disk
    disk.works.set()


@pytest.fixture(autouse=True)
def short_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saver_module, "PAUSE", 0.01)
    monkeypatch.setattr(saver_module, "PATIENCE", 0.05)


def saved(file: StateFile) -> int | None:
    found = file.load(PATTERN)
    return None if found is None else found.state.engine_time


def test_the_latest_state_is_saved(tmp_path: Path, disk: Disk) -> None:
    file = StateFile(tmp_path, "a:1")
    saver = Saver(file, disk.offload)
    for state in STATES:
        saver.save(state, wanted)

    saver.flush(60)

    assert saved(file) == 99
    assert disk.asked < len(STATES)


def test_a_flush_does_not_wait_for_the_pause(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saver_module, "PAUSE", 1000)
    file = StateFile(tmp_path, "a:1")
    saver = Saver(file, disk.offload)
    saver.save(STATES[1], wanted)
    wait_for(lambda: saved(file) == 1, "the first state")
    saver.save(STATES[2], wanted)

    saver.flush(60)

    assert saved(file) == 2


def test_a_flush_without_anything_to_save_returns_at_once(tmp_path: Path, disk: Disk) -> None:
    began = time.monotonic()
    Saver(StateFile(tmp_path, "a:1"), disk.offload).flush(60)

    assert time.monotonic() - began < 30
    assert disk.asked == 0


def test_what_is_not_wanted_when_it_is_written_is_not_saved(tmp_path: Path, disk: Disk) -> None:
    file = StateFile(tmp_path, "a:1")
    saver = Saver(file, disk.offload)
    saver.save(STATES[1], wanted)
    saver.flush(60)
    saver.save(STATES[2], lambda: False)
    saver.flush(60)

    assert saved(file) == 1


def test_a_disk_that_hangs_delays_nobody_and_makes_one_line(
    tmp_path: Path, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    file = StateFile(tmp_path, "a:1")
    saver = Saver(file, disk.offload)
    disk.works.clear()
    began = time.monotonic()
    saver.save(STATES[1], wanted)
    wait_for(lambda: disk.asked, "the disk to be asked")
    saver.flush(0.1)

    def reported() -> object:
        saver.report_hang()
        return caplog.messages

    wait_for(reported, "a line")
    for state in STATES:
        saver.save(state, wanted)
        saver.report_hang()
    assert time.monotonic() - began < 30
    assert disk.asked == 1
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(
        f"{file.path} cannot be written: the disk does not answer: the last snapshot"
    )

    disk.works.set()
    saver.flush(60)

    assert saved(file) == 99
    assert len(caplog.messages) == 1


def test_each_trouble_makes_one_line(
    tmp_path: Path, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "missing"
    file = StateFile(folder, "a:1")
    saver = Saver(file, disk.offload)
    for state in STATES[:5]:
        saver.save(state, wanted)
        saver.flush(60)
    assert len(caplog.messages) == 1
    assert "cannot be written: No such file or directory" in caplog.messages[0]
    assert "will not survive a restart" in caplog.messages[0]

    folder.mkdir()
    saver.save(STATES[5], wanted)
    saver.flush(60)
    assert saved(file) == 5

    file.path.unlink()
    folder.rmdir()
    saver.save(STATES[6], wanted)
    saver.flush(60)
    assert len(caplog.messages) == 2


def test_strays_are_removed_before_the_first_save(tmp_path: Path, disk: Disk) -> None:
    (tmp_path / "state-a:1.77.new").write_text("x")
    saver = Saver(StateFile(tmp_path, "a:1"), disk.offload)

    saver.save(STATES[1], wanted)
    saver.flush(60)

    assert [each.name for each in tmp_path.iterdir()] == ["state-a:1.jsonl"]


def test_it_continues_after_an_unexpected_error(
    tmp_path: Path, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    file = StateFile(tmp_path, "a:1")
    saver = Saver(file, disk.offload)

    def broken() -> bool:
        raise RuntimeError("broken")

    saver.save(STATES[1], broken)
    saver.flush(60)
    saver.save(STATES[2], wanted)
    saver.flush(60)

    assert saved(file) == 2
    assert "unexpected error in the saver; continuing" in caplog.text
