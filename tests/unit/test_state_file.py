"""The state file: what outlives the service, and that nothing else harms the next start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from container_healthcheck.model.drains import Drains, Mark
from container_healthcheck.model.history import Change, History
from container_healthcheck.model.host_state import HostState
from container_healthcheck.model.probe_state import RESTARTED, ProbeStates
from container_healthcheck.model.snapshot import snapshot_of
from container_healthcheck.storage import state_file
from container_healthcheck.storage.state_file import StateFile, StateFileError
from tests.unit.containers import PATTERN, container

ADDRESS = "127.0.0.1:4246"
STATE = HostState(
    PATTERN,
    snapshot_of([container(f"app{number}-1") for number in range(300)], PATTERN, confirmed_at=5.5),
    ProbeStates().with_changes({"app1": RESTARTED}),
    Drains({"app2": Mark(1.5, None, "磁盘")}),
    History().after({"app1": 0}, [Change(2.5, "app1", 0, 14, "502")]),
    engine_time=7,
)
SAVED = replace(STATE, history=STATE.history.before_start())


@pytest.fixture
def file(tmp_path: Path) -> StateFile:
    return StateFile(tmp_path, ADDRESS)


def lines_of(file: StateFile) -> list[str]:
    return file.path.read_text().splitlines(keepends=True)


def change_head(file: StateFile, **fields: object) -> None:
    head, *lines = lines_of(file)
    file.path.write_text(json.dumps({**json.loads(head), **fields}) + "\n" + "".join(lines))


def test_there_is_nothing_at_first(file: StateFile) -> None:
    assert file.load(PATTERN) is None


def test_what_was_saved_last_is_loaded(file: StateFile) -> None:
    file.save(HostState(PATTERN))
    before = time.monotonic()
    file.save(STATE)

    saved = file.load(PATTERN)

    assert saved is not None
    assert saved.state == SAVED
    assert saved.saved_at is not None and before <= saved.saved_at <= time.monotonic()
    assert not saved.state.history.has_begun
    assert [each.name for each in file.path.parent.iterdir()] == [f"state-{ADDRESS}.jsonl"]


OF_2_1 = {
    "version": 1,
    "boot": "another",
    "booted_at": 1.0,
    "known": {
        "known": {"app1": [14, 2.5], "app2": [0, None]},
        "changes": [["changed", 2.5, "app1", 0, 14, "502"]],
        "counts": {"app1": 1},
        "has_begun": True,
    },
}


def test_the_history_of_2_1_0_is_taken_over_once(file: StateFile, tmp_path: Path) -> None:
    for kind in ("history", "serving"):
        (tmp_path / f"{kind}-{ADDRESS}.json").write_text(json.dumps(OF_2_1))

    saved = file.load(PATTERN)
    file.remove_strays()

    assert saved is not None and saved.saved_at is None
    assert saved.state == HostState(PATTERN, history=saved.state.history)
    assert saved.state.history.changes == (Change(2.5, "app1", 0, 14, "502"),)
    assert saved.state.history.since("app1", 14) == 2.5
    assert saved.state.history.counts == {"app1": 1}
    assert not saved.state.history.has_begun
    assert not list(tmp_path.iterdir())
    assert file.load(PATTERN) is None


@pytest.mark.parametrize("text", ["", "[]", "{", '{"known": 1}', '{"known": {"changes": [1]}}'])
def test_a_damaged_history_of_2_1_0_is_refused(file: StateFile, tmp_path: Path, text: str) -> None:
    (tmp_path / f"history-{ADDRESS}.json").write_text(text)

    with pytest.raises(StateFileError, match="history-127"):
        file.load(PATTERN)


def test_after_a_reboot_only_the_history_counts(file: StateFile) -> None:
    file.save(STATE)
    change_head(file, boot="another", saved_at=time.monotonic() + 1e6)

    saved = file.load(PATTERN)

    assert saved is not None
    assert saved.saved_at is None
    assert saved.state == HostState(PATTERN, history=SAVED.history)


def test_the_clock_tells_a_reboot_where_the_kernel_is_hidden(
    file: StateFile, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(state_file, "_BOOT_ID", tmp_path / "nothing")
    file.save(STATE)
    saved = file.load(PATTERN)
    assert saved is not None and saved.state == SAVED

    change_head(file, booted_at=time.time() - time.monotonic() - 3600)

    saved = file.load(PATTERN)
    assert saved is not None and saved.saved_at is None


def test_a_file_that_is_cut_off_anywhere_is_refused(file: StateFile) -> None:
    file.save(STATE)
    text = file.path.read_bytes()

    for length in [*range(0, len(text) - 1, 997), len(text) - 5, len(text) - 2]:
        file.path.write_bytes(text[:length])
        with pytest.raises(StateFileError, match=r"cannot be used|is not complete"):
            file.load(PATTERN)


def test_a_line_that_is_missing_at_the_end_is_noticed(file: StateFile) -> None:
    file.save(STATE)
    lines = lines_of(file)
    for count in range(1, len(lines)):
        file.path.write_text("".join(lines[:count]))
        with pytest.raises(StateFileError, match="is not complete"):
            file.load(PATTERN)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"version": 99}, "is of another version"),
        ({"version": None}, "is of another version"),
        ({"saved_at": 1e12}, "is from the future"),
        ({"saved_at": "soon"}, "cannot be used"),
        ({"saved_at": float("nan")}, "is from the future"),
        ({"booted_at": None}, "cannot be used"),
    ],
)
def test_a_head_that_cannot_be_used(file: StateFile, fields: dict[str, object], why: str) -> None:
    file.save(STATE)
    change_head(file, **fields)

    with pytest.raises(StateFileError) as raised:
        file.load(PATTERN)

    assert str(raised.value).startswith(f"{file.path} {why}")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n",
        b"[]\n",
        b"{}\n",
        b"7\n",
        b"\xff\xfe nothing",
        b"[" * 100_000,
        b'{"version":2}\n{"end":true}\n',
        b"\0" * 1000,
    ],
)
def test_what_is_no_state_file_is_refused(file: StateFile, text: bytes) -> None:
    file.path.write_bytes(text)

    with pytest.raises(StateFileError, match=r"cannot be used|of another version") as raised:
        file.load(PATTERN)
    assert len(str(raised.value)) < 500 + len(str(file.path))


def test_a_message_that_cannot_be_used_is_refused(file: StateFile) -> None:
    file.save(STATE)
    head, *lines = lines_of(file)
    file.path.write_text("".join([head, '{"fault":[]}\n', *lines]))

    with pytest.raises(StateFileError, match="not a message"):
        file.load(PATTERN)


def a_folder(path: Path) -> None:
    path.mkdir()


def a_link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


@pytest.mark.parametrize("make", [a_folder, a_link_to_itself])
def test_what_cannot_be_read_is_refused(file: StateFile, make: Callable[[Path], None]) -> None:
    make(file.path)

    with pytest.raises(StateFileError, match="cannot be read: "):
        file.load(PATTERN)


def test_a_state_that_is_not_wanted_any_more_is_not_saved(file: StateFile) -> None:
    file.save(STATE)
    file.save(HostState(PATTERN), lambda: False)

    saved = file.load(PATTERN)
    assert saved is not None and saved.state == SAVED
    assert len(list(file.path.parent.iterdir())) == 1


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "missing", ADDRESS)

    with pytest.raises(StateFileError, match=f"{file.path} cannot be written: No such file"):
        file.save(STATE)
    file.remove_strays()


def test_a_disk_that_is_full_leaves_what_was_saved(file: StateFile) -> None:
    file.save(STATE)

    file.path.with_suffix(f".{os.getpid()}.new").symlink_to("/dev/full")
    with pytest.raises(StateFileError, match="cannot be written: No space left on device"):
        file.save(HostState(PATTERN))

    saved = file.load(PATTERN)
    assert saved is not None and saved.state == SAVED
    assert len(list(file.path.parent.iterdir())) == 1


KILLED = """
import os, signal, sys
from pathlib import Path
from container_healthcheck.model.host_state import HostState
from container_healthcheck.model.names import NamePattern
from container_healthcheck.storage.state_file import StateFile

def die():
    os.kill(os.getpid(), signal.SIGKILL)

StateFile(Path(sys.argv[1]), sys.argv[2]).save(HostState(NamePattern("{app_code}")), die)
"""


@pytest.mark.parametrize("address", [ADDRESS, "[::1]:4246"])
def test_a_kill_during_a_save_leaves_nothing_for_good(tmp_path: Path, address: str) -> None:
    file, other = StateFile(tmp_path, address), StateFile(tmp_path, "127.0.0.1:42460")
    file.save(STATE)
    other.save(STATE)
    for each in (address, "127.0.0.1:42460"):
        done = subprocess.run([sys.executable, "-c", KILLED, tmp_path, each], check=False)
        assert done.returncode == -9
    assert len(list(tmp_path.iterdir())) == 4

    file.remove_strays()

    # The stray of another service is not this one's business.
    assert len(list(tmp_path.iterdir())) == 3
    other.remove_strays()
    assert {each.suffix for each in tmp_path.iterdir()} == {".jsonl"}
    saved = file.load(PATTERN)
    assert saved is not None and saved.state == SAVED


def test_two_services_share_a_folder(tmp_path: Path) -> None:
    first, second = StateFile(tmp_path, ADDRESS), StateFile(tmp_path, "127.0.0.1:4247")
    first.save(STATE)
    second.save(HostState(PATTERN))

    saved = first.load(PATTERN)

    assert saved is not None and saved.state == SAVED
