"""The change log: one line for each change, and none for what stays."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

import pytest

from container_healthcheck import changelog
from container_healthcheck.model.container import Container
from container_healthcheck.model.drains import HOST, Drains, Mark
from container_healthcheck.model.history import Change, History, Known
from container_healthcheck.model.report import Report
from container_healthcheck.model.snapshot import Snapshot, snapshot_of
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


def before_the_first_list(fault: Fault | None = None) -> Report:
    return Report(Snapshot(fault=fault), now=0, stale_after=15)


class Log:
    """What a leader records, one report after the other."""

    def __init__(self, history: History | None = None) -> None:
        self.history = history or History()
        self._fault: Fault | None = None

    def record(self, new: Report, restarted: Iterable[str] = ()) -> None:
        changelog.write(changelog.engine_line(self._fault, new.snapshot.fault))
        self._fault = new.snapshot.fault
        # All that there is or was: what has not changed makes no line.
        evaluated = {*new.verdicts, *self.history.known}
        found = changelog.compare(new, self.history, evaluated, restarted, NOW)
        self.history = self.history.after(found.found, found.changes)
        changelog.write(found.lines)


@pytest.fixture(autouse=True)
def all_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def test_the_first_report_is_summed_up(caplog: pytest.LogCaptureFixture) -> None:
    leader = Log()
    leader.record(report(container("a-1"), container("b-1", state="exited", status="Exited (1)")))

    assert caplog.messages == [
        "watching 2 apps, 1 of them healthy",
        "b: new -> 13: b-1 is exited: Exited (1)",
    ]
    assert leader.history.changes == ()
    assert leader.history.known == {"a": Known(0, None), "b": Known(13, None)}


def test_each_change_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    leader = Log()
    leader.record(report(container("a-1"), container("b-1")))
    caplog.clear()

    leader.record(report(container("a-1"), container("b-1", status="Up 6 days")))
    assert caplog.messages == []

    leader.record(report(container("b-1"), container("c-1"), failing={"b": "502 Bad Gateway"}))
    leader.record(report(container("b-1"), container("c-1")))

    assert caplog.messages == [
        "a: 0 -> 12: no container of a on this host",
        "b: 0 -> 14: b-1 is running, but the app does not answer: 502 Bad Gateway",
        "c: new -> 0: c-1 Up 5 days",
        "b: 14 -> 0: b-1 Up 5 days",
    ]
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING", "INFO", "INFO"]
    assert leader.history.changes[0] == Change(NOW, "b", 14, 0, "b-1 Up 5 days")
    assert leader.history.since("b", 0) == NOW


def test_only_evaluated_apps_are_compared(caplog: pytest.LogCaptureFixture) -> None:
    leader = Log()
    leader.record(report(container("a-1"), container("b-1")))
    caplog.clear()

    found = changelog.compare(report(), leader.history, ["b"], (), NOW)

    assert [(each.app_code, each.new) for each in found.changes] == [("b", 12)]


def test_a_change_that_all_apps_have_in_common_is_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    containers = [container(f"app{number}-1") for number in range(300)]
    leader = Log()
    leader.record(report(*containers))
    caplog.clear()

    leader.record(report(*containers, drains=Drains({HOST: Mark(0, None, "kernel update")})))
    leader.record(report(*containers))

    assert len(caplog.messages) == 2
    assert caplog.messages[0].startswith("all 300 apps: 0 -> 15: this host is drained since")
    assert caplog.messages[1] == "all 300 apps: 15 -> 0"
    assert len(leader.history.changes) == 200


def test_trouble_with_the_engine_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    a, b = container("a-1"), container("b-1")
    leader = Log()
    leader.record(report(a, b))
    caplog.clear()

    leader.record(report(a, b, fault=REFUSED))
    leader.record(report(a, b, fault=REFUSED))
    leader.record(report(a, b, fault=TIMEOUT))
    leader.record(report(a, b, fault=TIMEOUT, now=20))
    leader.record(report(a, b))

    assert caplog.messages == [
        "cannot connect to Docker: refused",
        "Docker does not answer in time",
        "all 2 apps: 0 -> 11: Docker does not answer in time"
        " (no full list of containers for over 15 s)",
        "Docker is answering again",
        "all 2 apps: 11 -> 0",
    ]


def test_before_the_first_list_only_the_engine_makes_a_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    leader = Log()
    leader.record(before_the_first_list())
    leader.record(before_the_first_list(REFUSED))

    assert caplog.messages == ["cannot connect to Docker: refused"]
    assert not leader.history.has_begun


def test_another_leader_continues_with_the_history(caplog: pytest.LogCaptureFixture) -> None:
    first = Log()
    first.record(report(container("a-1"), container("b-1")))
    caplog.clear()

    second = Log(first.history)
    second.record(report(container("a-1"), container("b-1")))
    assert caplog.messages == []
    second.record(report(container("a-1")))
    assert caplog.messages == ["b: 0 -> 12: no container of b on this host"]


def test_a_new_start_logs_what_has_changed_and_what_is_still_wrong(
    caplog: pytest.LogCaptureFixture,
) -> None:
    dead = container("b-1", state="exited", status="Exited (1)")
    before = Log()
    before.record(report(container("a-1"), dead, container("c-1"), container("d-1")))
    caplog.clear()

    after = Log(before.history.before_start())
    after.record(report(container("a-1", state="paused"), dead, container("c-1"), container("e-1")))

    assert caplog.messages == [
        "watching 4 apps, 2 of them healthy",
        "a: 0 -> 13: a-1 is paused: Up 5 days",
        "b: still 13: b-1 is exited: Exited (1)",
        "d: 0 -> 12: no container of d on this host",
    ]
    assert [(each.app_code, each.new) for each in after.history.changes] == [("d", 12), ("a", 13)]
    assert after.history.known["e"] == Known(0, None)


def test_a_restart_that_nobody_could_notice_is_one_change(
    caplog: pytest.LogCaptureFixture,
) -> None:
    leader = Log()
    leader.record(report(container("a-1"), container("b-1", state="exited")))
    caplog.clear()

    leader.record(report(container("a-1"), container("b-1", state="exited")), restarted=["a", "b"])

    # What is not healthy has not restarted for anybody.
    assert leader.history.changes == (Change(NOW, "a", 0, 0, "restarted: a-1 Up 5 days"),)
    assert caplog.messages == ["a: 0 -> 0: restarted: a-1 Up 5 days"]
    assert leader.history.counts == {"a": 1}
    assert leader.history.since("a", 0) is None


def test_a_restart_that_others_could_notice_is_the_change_that_it_makes() -> None:
    leader = Log()
    leader.record(report(container("a-1")))

    leader.record(report(container("a-1", state="exited")))
    leader.record(report(container("a-1")), restarted=["a"])

    assert [(each.old, each.new) for each in leader.history.oldest_first] == [(0, 13), (13, 0)]
