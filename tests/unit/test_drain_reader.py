"""The drain reader: marks are published when they change, and a disk that hangs is reported."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from container_healthcheck.model.drains import Drains
from container_healthcheck.observers import drain_reader
from container_healthcheck.observers.drain_folder import DrainFolder
from container_healthcheck.observers.drain_reader import DrainReader
from sandbox.waiting import wait_for


class Read:
    """A reader, the marks that it has given, and a disk that can hang."""

    def __init__(self, folder: DrainFolder) -> None:
        self.taken: list[Drains] = []
        self.breaks = False
        self.disk = threading.Event()
        self.disk.set()
        self.hangs = threading.Event()
        self.reader = DrainReader(folder, self._take, self._offload)

    def _take(self, drains: Drains) -> None:
        if self.breaks:
            raise RuntimeError("broken")
        self.taken.append(drains)

    def _offload(self, work: Callable[[], None]) -> None:
        if not self.disk.is_set():
            self.hangs.set()
            assert self.disk.wait(60)
        work()

    def marked(self) -> list[set[str]]:
        return [set(each.marks) for each in self.taken]


@pytest.fixture
def folder(tmp_path: Path) -> DrainFolder:
    return DrainFolder(tmp_path)


@pytest.fixture
def read(folder: DrainFolder) -> Iterator[Read]:
    read = Read(folder)
    yield read
    read.disk.set()
    read.reader.stop()


def test_marks_are_given_when_they_change(read: Read, folder: DrainFolder) -> None:
    folder.add("a", "", None)
    read.reader.start()
    assert read.reader.wait_read(60)
    assert read.marked() == [{"a"}]

    folder.add("b", "", None)
    wait_for(lambda: read.marked() == [{"a"}, {"a", "b"}], "the new mark")
    folder.remove("a")
    wait_for(lambda: read.marked()[2:] == [{"b"}], "the end of the first")


def test_what_could_not_be_taken_is_given_again(
    read: Read, folder: DrainFolder, caplog: pytest.LogCaptureFixture
) -> None:
    folder.add("a", "", None)
    read.breaks = True
    read.reader.start()
    wait_for(lambda: "unexpected error while drain marks were read" in caplog.text, "a line")
    assert not read.reader.wait_read(0)

    read.breaks = False

    assert read.reader.wait_read(60)
    assert read.marked() == [{"a"}]


def test_a_disk_that_hangs_is_reported_once_and_known_marks_stay(
    read: Read,
    folder: DrainFolder,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drain_reader, "PATIENCE", 0.05)
    folder.add("a", "", None)
    read.reader.start()
    assert read.reader.wait_read(60)
    read.reader.report_hang()
    read.disk.clear()
    assert read.hangs.wait(60)

    def reported() -> object:
        read.reader.report_hang()
        return caplog.messages

    wait_for(reported, "the line")
    read.reader.report_hang()
    assert len(caplog.messages) == 1
    assert f"{folder.path} cannot be read: the disk does not answer" in caplog.messages[0]
    assert read.marked() == [{"a"}]

    folder.add("b", "", None)
    read.disk.set()
    wait_for(lambda: read.marked() == [{"a"}, {"a", "b"}], "the new mark")
    read.reader.report_hang()
    assert len(caplog.messages) == 1


def test_a_folder_that_cannot_be_listed_is_reported_once(
    read: Read, folder: DrainFolder, caplog: pytest.LogCaptureFixture
) -> None:
    folder.path.write_text("not a folder")
    read.reader.start()
    wait_for(lambda: caplog.messages, "a line")
    folder.path.unlink()
    folder.add("a", "", None)
    wait_for(lambda: read.marked()[-1:] == [{"a"}], "the mark")

    assert len(caplog.messages) == 1
    assert "cannot be listed: Not a directory" in caplog.messages[0]


def test_nothing_is_given_after_the_stop(read: Read, folder: DrainFolder) -> None:
    read.reader.start()
    assert read.reader.wait_read(60)
    read.disk.clear()
    assert read.hangs.wait(60)
    folder.add("a", "", None)
    read.reader.stop()

    read.disk.set()

    wait_for(lambda: "drains" not in {thread.name for thread in threading.enumerate()}, "its end")
    assert read.marked() == [set()]
