"""The log: one line for each change, and none for what stays."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import pytest

from container_healthcheck.board import Report
from container_healthcheck.journal import Journal
from container_healthcheck.model.container import Container
from container_healthcheck.model.snapshot import Picture, draw
from container_healthcheck.model.verdict import Code, Fault
from container_healthcheck.observers.drain_folder import HOST, Drains, Mark
from tests.unit.containers import PATTERN, container

REFUSED = Fault(Code.ENGINE_UNREACHABLE, "cannot connect to Docker: refused")
TIMEOUT = Fault(Code.ENGINE_FAULTY, "Docker does not answer in time")


def report(
    *containers: Container,
    fault: Fault | None = None,
    failing: Mapping[str, str] | None = None,
    drains: Drains | None = None,
    now: float = 0,
) -> Report:
    picture = draw(containers, PATTERN, confirmed_at=0, fault=fault)
    return Report(picture, failing or {}, drains or Drains(), now=now, stale_after=15)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    caplog.set_level(logging.DEBUG)
    return caplog.messages


def test_the_first_report_is_summed_up(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    Journal().note(report(container("a-1"), container("b-1", state="exited", status="Exited (1)")))

    assert caplog.messages == [
        "watching 2 apps, 1 of them healthy",
        "b: new -> 13: b-1 is exited: Exited (1)",
    ]


def test_each_change_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    journal = Journal()
    journal.note(report(container("a-1"), container("b-1")))
    caplog.clear()

    journal.note(report(container("a-1"), container("b-1", status="Up 6 days")))
    assert caplog.messages == []

    journal.note(report(container("b-1"), container("c-1"), failing={"b": "502 Bad Gateway"}))
    journal.note(report(container("b-1"), container("c-1")))

    assert caplog.messages == [
        "a: 0 -> 12: no container of a on this host",
        "b: 0 -> 14: b-1 is running, but the app does not answer: 502 Bad Gateway",
        "c: new -> 0: c-1 Up 5 days",
        "b: 14 -> 0: b-1 Up 5 days",
    ]
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING", "INFO", "INFO"]


def test_what_befalls_all_apps_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    containers = [container(f"app{number}-1") for number in range(300)]
    journal = Journal()
    journal.note(report(*containers))
    caplog.clear()

    journal.note(report(*containers, drains=Drains({HOST: Mark(0, None, "kernel update")})))
    journal.note(report(*containers))

    assert len(caplog.messages) == 2
    assert caplog.messages[0].startswith("all 300 apps: 0 -> 15: this host is drained since")
    assert caplog.messages[1] == "all 300 apps: 15 -> 0"


def test_trouble_with_the_engine_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    a, b = container("a-1"), container("b-1")
    journal = Journal()
    journal.note(report(a, b))
    caplog.clear()

    journal.note(report(a, b, fault=REFUSED))
    journal.note(report(a, b, fault=REFUSED))
    journal.note(report(a, b, fault=TIMEOUT))
    journal.note(report(a, b, fault=TIMEOUT, now=20))
    journal.note(report(a, b))

    assert caplog.messages == [
        "cannot connect to Docker: refused",
        "Docker does not answer in time",
        "all 2 apps: 0 -> 11: Docker does not answer in time (no full list of containers for 15 s)",
        "Docker answers again",
        "all 2 apps: 11 -> 0",
    ]


def test_before_the_first_picture_only_the_engine_is_spoken_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    journal = Journal()
    for fault in (None, REFUSED):
        picture = Picture(fault=fault)
        journal.note(Report(picture, {}, Drains(), now=0, stale_after=15))

    assert caplog.messages == ["cannot connect to Docker: refused"]


def test_only_the_lead_writes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    leads = [False]
    journal = Journal(lambda: leads[0])
    journal.note(report(container("a-1")))
    assert caplog.messages == []

    leads[0] = True
    journal.note(report(container("a-1")))
    assert caplog.messages == []
    journal.note(report(container("a-1"), failing={"a": "502"}))
    assert len(caplog.messages) == 1
