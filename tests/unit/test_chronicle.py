"""The chronicle: whoever leads next goes on from what was told."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from container_healthcheck.chronicle import Chronicle
from container_healthcheck.journal import Journal
from container_healthcheck.model.report import Report
from container_healthcheck.model.snapshot import Snapshot, snapshot_of
from container_healthcheck.model.verdict import Code, Fault
from container_healthcheck.observers.replica import Replica
from container_healthcheck.observers.sheet import Sheet
from tests.unit.containers import PATTERN, container
from tests.unit.replicas import replica

A, B = container("a-1"), container("b-1")


class Lead:
    """A worker that begins to lead, with what the ledger says."""

    def __init__(self, ledger: int, sheet: int, folder: Path, report: Report) -> None:
        self.replica: Replica = replica(ledger, folder)
        journal = Journal(self.replica.history)
        self.chronicle = Chronicle(journal, self.replica, Sheet(sheet), dict)
        self.chronicle.begin(report, [])
        self.chronicle.tell(report)


@pytest.fixture
def files() -> Iterator[tuple[int, int]]:
    with (
        tempfile.TemporaryFile(buffering=0) as ledger,
        tempfile.TemporaryFile(buffering=0) as sheet,
    ):
        yield ledger.fileno(), sheet.fileno()


def test_an_app_that_went_before_the_first_snapshot_of_a_new_lead_is_told_of(
    files: tuple[int, int], tmp_path: Path
) -> None:
    both = snapshot_of([A, B], PATTERN, confirmed_at=0)
    Lead(*files, tmp_path, Report(both, now=1, stale_after=15))
    blind = Snapshot(fault=Fault(Code.ENGINE_UNREACHABLE, "cannot connect to Docker"))
    in_the_dark = Report(blind, now=1, stale_after=15)
    lead = Lead(*files, tmp_path, in_the_dark)
    assert set(lead.replica.history.known) == {"a", "b"}

    one = snapshot_of([A], PATTERN, confirmed_at=1)
    sees = Report(one, now=1, stale_after=15, before=in_the_dark, touched=["a"])
    lead.chronicle.judged(sees.judged)
    lead.chronicle.tell(sees)

    assert set(lead.replica.history.known) == {"a"}
    (change,) = lead.replica.history.changes
    assert (change.app_code, change.old, change.new) == ("b", 0, Code.NO_CONTAINER)
