"""One worker's monitor, where what the workers share cannot be written, or was handed over."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest

from container_healthcheck.model.container import Container
from container_healthcheck.model.probes import Observed
from container_healthcheck.model.snapshot import snapshot_of
from container_healthcheck.monitor import Monitor, Shared
from container_healthcheck.observers.ledger import Ledger
from container_healthcheck.observers.sheet import Sheet
from container_healthcheck.settings import Settings
from tests.unit.containers import PATTERN, container
from tests.unit.faults import no_room

DEAD = container("bk_iam-1", state="exited")
ALIVE = container("bk_iam-1")


def lead(files: tuple[int, int], folder: Path) -> Monitor:
    settings = Settings(state_dir=folder, probe_url="http://127.0.0.1:1/{app_code}")
    monitor = Monitor(settings, Shared(*files, lambda: True))
    monitor.open()
    return monitor


def see(monitor: Monitor, *containers: Container) -> None:
    new = snapshot_of(containers, PATTERN, confirmed_at=time.monotonic())
    monitor.on_snapshot(new, frozenset({"bk_iam"}), {})


def test_a_full_ledger_is_said_once_and_made_up_for(
    files: tuple[int, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monitor = lead(files, tmp_path)
    see(monitor, ALIVE)
    caplog.set_level(logging.INFO)
    caplog.clear()

    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "append", no_room)
        see(monitor, DEAD)
        for _ in range(5):
            monitor.look()
        assert len(caplog.messages) == 1
        assert "cannot tell each other" in caplog.messages[0]
    for _ in range(3):
        monitor.look()

    assert [each for each in caplog.messages if "0 -> 13" in each] == caplog.messages[1:]
    assert len(caplog.messages) == 2


def test_what_was_kept_is_read_when_the_ledger_has_room_again(
    files: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "append", no_room)
        monitor = lead(files, tmp_path)
        assert Ledger(files[0]).is_empty

    monitor.look()

    assert not Ledger(files[0]).is_empty


def test_who_has_stopped_writes_no_more(files: tuple[int, int], tmp_path: Path) -> None:
    monitor = lead(files, tmp_path)
    see(monitor, ALIVE)
    monitor.stop()
    # The next lead goes on counting; and a probe of the one before ends late.
    next_lead = Observed({}, {"bk_iam": {"refused": 6}}, {})
    Sheet(files[1]).write(next_lead)
    monitor._ask("bk_iam")

    monitor.stop()

    assert Sheet(files[1]).read() == next_lead
