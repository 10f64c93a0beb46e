"""The log: one line for each change, and none for what stays."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import pytest

from container_healthcheck.journal import Journal
from container_healthcheck.model.container import Container
from container_healthcheck.model.drains import HOST, Drains, Mark
from container_healthcheck.model.history import History
from container_healthcheck.model.records import Changed, Found
from container_healthcheck.model.report import Report
from container_healthcheck.model.snapshot import snapshot_of
from container_healthcheck.model.verdict import Code, Fault
from tests.unit.containers import PATTERN, container

REFUSED = Fault(Code.ENGINE_UNREACHABLE, "cannot connect to Docker: refused")
TIMEOUT = Fault(Code.ENGINE_FAULTY, "Docker does not answer in time")
NOW = 1_800_000_000.0


def report(
    *containers: Container,
    fault: Fault | None = None,
    failing: Mapping[str, str] | None = None,
    drains: Drains | None = None,
    now: float = 0,
) -> Report:
    snapshot = snapshot_of(containers, PATTERN, confirmed_at=0, fault=fault)
    return Report(snapshot, failing or {}, drains, now=now, stale_after=15)


class Lead:
    """The worker that keeps the journal."""

    def __init__(self, history: History | None = None) -> None:
        self.history = history or History()
        self.journal = Journal(self.history, lambda: NOW)

    def note(self, new: Report, *, silently: bool = False) -> None:
        self.journal.note_engine(new, silently=silently)
        # All that there is or was: what has not changed makes no line.
        for record in self.journal.news(new, {*new.verdicts, *self.history.known}):
            if isinstance(record, Changed):
                self.history.changed(record)
            elif isinstance(record, Found):
                self.history.found(record)
        self.journal.told()
        self.journal.write()


@pytest.fixture(autouse=True)
def all_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def test_the_first_report_is_summed_up(caplog: pytest.LogCaptureFixture) -> None:
    lead = Lead()
    lead.note(report(container("a-1"), container("b-1", state="exited", status="Exited (1)")))

    assert caplog.messages == [
        "watching 2 apps, 1 of them healthy",
        "b: new -> 13: b-1 is exited: Exited (1)",
    ]
    assert lead.history.changes == ()
    assert lead.history.since("a", 0) is None


def test_each_change_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    lead = Lead()
    lead.note(report(container("a-1"), container("b-1")))
    caplog.clear()

    lead.note(report(container("a-1"), container("b-1", status="Up 6 days")))
    assert caplog.messages == []

    lead.note(report(container("b-1"), container("c-1"), failing={"b": "502 Bad Gateway"}))
    lead.note(report(container("b-1"), container("c-1")))

    assert caplog.messages == [
        "a: 0 -> 12: no container of a on this host",
        "b: 0 -> 14: b-1 is running, but the app does not answer: 502 Bad Gateway",
        "c: new -> 0: c-1 Up 5 days",
        "b: 14 -> 0: b-1 Up 5 days",
    ]
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING", "INFO", "INFO"]
    assert lead.history.changes[0] == Changed(NOW, "b", 14, 0, "b-1 Up 5 days")
    assert lead.history.since("b", 0) == NOW


def test_what_befalls_all_apps_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    containers = [container(f"app{number}-1") for number in range(300)]
    lead = Lead()
    lead.note(report(*containers))
    caplog.clear()

    lead.note(report(*containers, drains=Drains({HOST: Mark(0, None, "kernel update")})))
    lead.note(report(*containers))

    assert len(caplog.messages) == 2
    assert caplog.messages[0].startswith("all 300 apps: 0 -> 15: this host is drained since")
    assert caplog.messages[1] == "all 300 apps: 15 -> 0"


def test_trouble_with_the_engine_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    a, b = container("a-1"), container("b-1")
    lead = Lead()
    lead.note(report(a, b))
    caplog.clear()

    lead.note(report(a, b, fault=REFUSED))
    lead.note(report(a, b, fault=REFUSED))
    lead.note(report(a, b, fault=TIMEOUT))
    lead.note(report(a, b, fault=TIMEOUT, now=20))
    lead.note(report(a, b))

    assert caplog.messages == [
        "cannot connect to Docker: refused",
        "Docker does not answer in time",
        "all 2 apps: 0 -> 11: Docker does not answer in time"
        " (no full list of containers for over 15 s)",
        "Docker answers again",
        "all 2 apps: 11 -> 0",
    ]


def test_another_lead_goes_on_where_the_one_before_stopped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    history = History()
    Lead(history).note(report(container("a-1"), container("b-1")))
    caplog.clear()

    second = Lead(history)
    second.note(report(container("a-1"), container("b-1")))
    assert caplog.messages == []
    second.note(report(container("a-1")))
    assert caplog.messages == ["b: 0 -> 12: no container of b on this host"]


def test_a_new_start_tells_what_has_changed_and_what_is_still_wrong(
    caplog: pytest.LogCaptureFixture,
) -> None:
    dead = container("b-1", state="exited", status="Exited (1)")
    before = Lead()
    before.note(report(container("a-1"), dead, container("c-1"), container("d-1")))
    history = History()
    history.restore({**before.history.to_json(), "has_begun": False})
    caplog.clear()

    after = Lead(history)
    after.note(report(container("a-1", state="paused"), dead, container("c-1"), container("e-1")))

    assert caplog.messages == [
        "watching 4 apps, 2 of them healthy",
        "a: 0 -> 13: a-1 is paused: Up 5 days",
        "b: still 13: b-1 is exited: Exited (1)",
        "d: 0 -> 12: no container of d on this host",
    ]
    assert [(each.app_code, each.new) for each in history.changes] == [("d", 12), ("a", 13)]


def test_trouble_that_another_worker_tells_is_not_told_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    lead = Lead()
    lead.note(report(container("a-1"), fault=REFUSED), silently=True)
    lead.note(report(container("a-1"), fault=REFUSED))

    assert caplog.messages == ["watching 1 apps, 1 of them healthy"]


def test_what_could_not_be_told_makes_its_line_when_it_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    lead = Lead()
    lead.note(report(container("bk_iam-1709878117")))
    caplog.clear()

    dead = report(container("bk_iam-1709878117", state="exited"))
    for _ in range(3):
        lead.journal.news(dead, ["bk_iam"])
        lead.journal.write()
    assert caplog.messages == []

    lead.note(dead)
    assert len(caplog.messages) == 1
