"""The chronicle: whoever leads next goes on from what was told."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from container_healthcheck.chronicle import Chronicle
from container_healthcheck.journal import Journal
from container_healthcheck.model.report import Report
from container_healthcheck.model.snapshot import Snapshot, snapshot_of
from container_healthcheck.model.verdict import Code, Fault
from container_healthcheck.observers.sheet import Sheet
from tests.unit.containers import PATTERN, container
from tests.unit.replicas import replica

A, B = container("a-1"), container("b-1")
REFUSED = Fault(Code.ENGINE_UNREACHABLE, "cannot connect to Docker: refused")


def blind(fault: Fault | None = None) -> Report:
    return Report(Snapshot(fault=fault), now=0, stale_after=15)


class Lead:
    """A worker that begins to lead, with what the ledger says."""

    def __init__(self, files: tuple[int, int], folder: Path, report: Report) -> None:
        ledger, sheet = files
        self.replica = replica(ledger, folder)
        self._journal = Journal(self.replica.history)
        self._chronicle = Chronicle(self._journal, self.replica, Sheet(sheet), dict)
        self._chronicle.begin(report, [])
        self.sees(report)

    def sees(self, report: Report) -> None:
        self._chronicle.judged(report.judged)
        self._journal.note_engine(report, silently=False)
        self._chronicle.tell(report)
        self._journal.write()


def test_before_the_first_snapshot_only_the_engine_is_spoken_of(
    files: tuple[int, int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    Lead(files, tmp_path, blind()).sees(blind(REFUSED))

    assert caplog.messages == ["cannot connect to Docker: refused"]


def test_an_app_that_went_before_the_first_snapshot_of_a_new_lead_is_told_of(
    files: tuple[int, int], tmp_path: Path
) -> None:
    both = snapshot_of([A, B], PATTERN, confirmed_at=0)
    Lead(files, tmp_path, Report(both, now=1, stale_after=15))
    in_the_dark = blind(REFUSED)
    lead = Lead(files, tmp_path, in_the_dark)
    assert set(lead.replica.history.known) == {"a", "b"}

    one = snapshot_of([A], PATTERN, confirmed_at=1)
    lead.sees(Report(one, now=1, stale_after=15, before=in_the_dark, touched=["a"]))

    assert set(lead.replica.history.known) == {"a"}
    (change,) = lead.replica.history.changes
    assert (change.app_code, change.old, change.new) == ("b", 0, Code.NO_CONTAINER)
