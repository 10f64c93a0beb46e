"""Drain marks: what counts, for how long, and what a broken one does."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from container_healthcheck.model.drains import HOST
from container_healthcheck.observers.drain_folder import DrainFolder

NOW = 1_800_000_000.0


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def folder(tmp_path: Path, clock: Clock) -> DrainFolder:
    return DrainFolder(tmp_path, clock)


def test_nothing_is_drained_without_a_folder(folder: DrainFolder) -> None:
    assert folder.current().reason("bk_iam") is None


def test_a_mark_drains_its_app_and_no_other(folder: DrainFolder) -> None:
    folder.add("bk_iam", "disk change", None)

    assert "until undrained: disk change" in str(folder.current().reason("bk_iam"))
    assert folder.current().reason("bk_iam_app") is None
    assert folder.current().apps == {"bk_iam"}


def test_a_mark_of_the_host_drains_every_app(folder: DrainFolder) -> None:
    folder.add(HOST, "", None)

    assert "this host is drained since" in str(folder.current().reason("any"))
    assert "no reason given" in str(folder.current().reason("any"))
    assert folder.current().apps == frozenset()


def test_a_mark_is_ended(folder: DrainFolder) -> None:
    folder.add("bk_iam", "", None)

    assert folder.remove("bk_iam")
    assert not folder.remove("bk_iam")
    assert folder.current().reason("bk_iam") is None


def test_a_mark_ends_by_itself(folder: DrainFolder, clock: Clock) -> None:
    folder.add("bk_iam", "", NOW + 60)
    assert folder.current().reason("bk_iam")

    clock.now += 59.9
    assert folder.current().reason("bk_iam")
    clock.now += 0.1
    assert folder.current().reason("bk_iam") is None

    assert len(list(folder.path.iterdir())) == 1
    folder.remove_ended()
    assert list(folder.path.iterdir()) == []


def test_marks_in_force_stay_when_ended_ones_are_removed(folder: DrainFolder) -> None:
    folder.add("bk_iam", "", None)
    folder.add("bk_sops", "", NOW + 60)

    folder.remove_ended()

    assert folder.current().apps == {"bk_iam", "bk_sops"}


def test_a_mark_of_another_process_counts_at_once(folder: DrainFolder, tmp_path: Path) -> None:
    other = DrainFolder(tmp_path)

    for _ in range(50):
        other.add("bk_iam", "", None)
        assert folder.current().reason("bk_iam")
        other.remove("bk_iam")
        assert folder.current().reason("bk_iam") is None


def test_unchanged_marks_are_the_same_object(folder: DrainFolder, clock: Clock) -> None:
    folder.add("bk_iam", "", None)
    first = folder.current()
    clock.now += 100

    assert folder.current() is first


def test_settled_marks_are_not_read_again(
    folder: DrainFolder, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.add("bk_iam", "", None)
    os.utime(folder.path, (NOW - 10, NOW - 10))
    folder.current()
    monkeypatch.setattr(os, "listdir", lambda _: pytest.fail("read again"))

    clock.now += 0.5
    assert folder.current().reason("bk_iam")


def test_a_clock_that_was_set_back_makes_no_work(
    folder: DrainFolder, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.add("bk_iam", "", None)
    os.utime(folder.path, (NOW, NOW))
    clock.now -= 3600
    folder.current()
    monkeypatch.setattr(os, "listdir", lambda _: pytest.fail("read again"))

    assert folder.current().reason("bk_iam")


def test_an_edit_in_place_is_seen_a_little_later(folder: DrainFolder, clock: Clock) -> None:
    folder.add("bk_iam", "old", None)
    os.utime(folder.path, (NOW - 10, NOW - 10))
    folder.current()
    (folder.path / "bk_iam.json").write_text('{"since":0,"until":null,"reason":"new"}')

    clock.now += 1.1
    assert str(folder.current().reason("bk_iam")).endswith(": new")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"since":"x","until":null,"reason":""}',
        b'{"since":1e300,"until":null,"reason":""}',
        b'{"since":NaN,"until":null,"reason":""}',
        b'{"since":0,"until":NaN,"reason":""}',
        b"\xff",
        b'{"since":0,"until":null,"reason":"' + b"x" * 100_000 + b'"}',
        b"[" * 60_000,
    ],
)
def test_a_mark_that_cannot_be_read_counts_and_says_so(folder: DrainFolder, content: bytes) -> None:
    folder.path.mkdir()
    (folder.path / "bk_iam.json").write_bytes(content)

    said = str(folder.current().reason("bk_iam"))

    assert "bk_iam counts as drained: its mark cannot be read" in said
    assert str(folder.path / "bk_iam.json") in said


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


def a_folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("make", [a_pipe, a_dangling_link, a_folder])
def test_what_is_no_file_counts_and_says_so(
    folder: DrainFolder, make: Callable[[Path], None]
) -> None:
    folder.path.mkdir()
    make(folder.path / "bk_iam.json")

    assert "is not a file" in str(folder.current().reason("bk_iam"))


def test_a_reason_is_one_line(folder: DrainFolder) -> None:
    folder.add("bk_iam", " disk\nchange\x1b[31m\t磁盘 ", None)

    assert str(folder.current().reason("bk_iam")).endswith(": disk change [31m 磁盘")


def test_marks_can_be_read_by_others_whatever_the_mask(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        folder = DrainFolder(tmp_path / "state" / "deep")
        folder.add("bk_iam", "", None)
    finally:
        os.umask(old)

    assert (folder.path / "bk_iam.json").stat().st_mode & 0o777 == 0o644
    for each in (folder.path, folder.path.parent, folder.path.parent.parent):
        assert each.stat().st_mode & 0o777 == 0o755


def test_ended_marks_without_a_folder_are_no_error(folder: DrainFolder) -> None:
    folder.remove_ended()


def test_other_files_are_passed_over(folder: DrainFolder) -> None:
    folder.path.mkdir()
    for name in ("bk_iam", ".new-x", "..json", "-x.json", "notes.txt"):
        (folder.path / name).write_text("x")

    assert folder.current().marks == {}


def test_a_folder_that_cannot_be_listed_drains_nothing(
    folder: DrainFolder,
) -> None:
    folder.path.write_text("not a folder")

    assert folder.current().marks == {}
    assert "cannot be listed: Not a directory: new ones do not count" in folder.problem

    folder.path.unlink()
    assert folder.current().marks == {}
    assert folder.problem == ""


def test_a_folder_that_can_no_longer_be_listed_undrains_nothing(
    folder: DrainFolder, clock: Clock
) -> None:
    folder.add("bk_iam", "disk change", None)
    folder.add("bk_sops", "upgrade", clock.now + 60)
    before = folder.current()

    folder.path.rename(folder.path.with_name("elsewhere"))
    folder.path.write_text("not a folder")
    clock.now += 2

    assert folder.current() is before
    assert set(before.marks) == {"bk_iam", "bk_sops"}

    clock.now += 60

    assert set(folder.current().marks) == {"bk_iam"}

    folder.path.unlink()
    folder.path.with_name("elsewhere").rename(folder.path)
    clock.now += 2

    assert "disk change" in str(folder.current().reason("bk_iam"))


def test_a_mark_that_cannot_be_written_leaves_nothing(
    folder: DrainFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)

    with pytest.raises(OSError, match="No space"):
        folder.add("bk_iam", "", None)
    assert list(folder.path.iterdir()) == []


def test_a_mark_that_vanishes_while_it_is_read_is_none(
    folder: DrainFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.path.mkdir()
    monkeypatch.setattr(os, "listdir", lambda _: ["bk_iam.json"])

    assert folder.current().marks == {}
