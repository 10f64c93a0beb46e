"""The prober's rules: what counts as failing, and what a restart and a redeploy do."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from container_healthcheck.model.container import Container
from container_healthcheck.model.snapshot import Picture, draw
from container_healthcheck.observers.prober import UNASKED, Prober
from sandbox.waiting import wait_for
from tests.unit.containers import PATTERN, container

OLD, NEW = container("a-1"), container("a-2")
NOTHING: frozenset[str] = frozenset()
BAD = "502 Bad Gateway"


def picture(*containers: Container) -> Picture:
    return draw(containers, PATTERN, confirmed_at=0)


class Apps:
    """Apps that answer what the test says, and a prober that asks often."""

    def __init__(self) -> None:
        self.seen: dict[str, str | None] = {}
        self.asked: list[str] = []
        self.changes = 0
        self.prober = Prober(self._answer, interval=0.05, fall=2, on_change=self._count)

    def _answer(self, app_code: str) -> str | None:
        self.asked.append(app_code)
        return self.seen.get(app_code)

    def _count(self, _: object) -> None:
        self.changes += 1

    def observe(self, *containers: Container, started: frozenset[str] = NOTHING) -> None:
        self.prober.observe(picture(*containers), started)

    def is_asked(self, app_code: str, times: int) -> None:
        least = self.asked.count(app_code) + times
        wait_for(lambda: self.asked.count(app_code) >= least, f"{times} probes of {app_code}")


@pytest.fixture
def idle() -> Apps:
    """A prober that does not ask by itself."""
    return Apps()


@pytest.fixture
def apps() -> Iterator[Apps]:
    apps = Apps()
    apps.prober.start()
    yield apps
    apps.prober.stop()


def test_apps_found_running_at_start_are_presumed_good(idle: Apps) -> None:
    idle.observe(OLD)

    assert idle.prober.failing == {}


def test_a_picture_that_is_not_confirmed_is_no_start(idle: Apps) -> None:
    idle.prober.observe(Picture(), NOTHING)
    idle.observe(OLD)

    assert idle.prober.failing == {}


def test_an_app_that_appears_later_must_pass_first(idle: Apps) -> None:
    idle.observe()
    idle.observe(OLD)

    assert idle.prober.failing == {"a": UNASKED}


def test_an_app_that_died_and_came_back_must_pass_first(idle: Apps) -> None:
    idle.observe(OLD)
    idle.observe(container("a-1", state="exited"))
    assert idle.prober.failing == {}

    idle.observe(OLD)
    assert idle.prober.failing == {"a": UNASKED}


def test_a_restart_too_quick_to_be_seen_dead_counts_as_well(idle: Apps) -> None:
    idle.observe(OLD)
    idle.observe(OLD, started=frozenset({OLD.id}))

    assert idle.prober.failing == {"a": UNASKED}


def test_a_redeploy_interrupts_nothing(idle: Apps) -> None:
    idle.observe(OLD)
    idle.observe(OLD, NEW, started=frozenset({NEW.id}))
    assert idle.prober.failing == {}
    idle.observe(NEW)

    assert idle.prober.failing == {}


def test_a_java_redeploy_starts_anew(idle: Apps) -> None:
    idle.observe(container("java1709878117"))
    idle.observe()
    idle.observe(container("java1709878118"))

    assert idle.prober.failing == {"java": UNASKED}


def test_an_app_replaced_at_once_must_pass_first(idle: Apps) -> None:
    idle.observe(OLD)
    idle.observe(NEW, started=frozenset({NEW.id}))

    assert idle.prober.failing == {"a": UNASKED}


def test_one_pass_ends_the_wait(apps: Apps) -> None:
    apps.observe()
    apps.observe(OLD)

    wait_for(lambda: apps.prober.failing == {}, "a pass")


def test_an_app_that_comes_back_shows_what_the_probe_saw(apps: Apps) -> None:
    apps.seen["a"] = BAD
    apps.observe()
    apps.observe(OLD)

    wait_for(lambda: apps.prober.failing == {"a": BAD}, "a failure")
    apps.is_asked("a", 3)
    apps.seen["a"] = None
    wait_for(lambda: apps.prober.failing == {}, "a pass")


def test_failures_in_a_row_count_and_one_pass_clears(apps: Apps) -> None:
    apps.observe(OLD, container("b-1"))
    apps.is_asked("a", 2)
    apps.seen["a"] = BAD

    wait_for(lambda: apps.prober.failing == {"a": BAD}, "the fall")
    apps.seen["a"] = None
    wait_for(lambda: apps.prober.failing == {}, "the pass")

    assert apps.changes == 2


def test_a_single_failure_is_forgiven() -> None:
    answers = iter([BAD, None] * 1000)
    failed: list[dict[str, str]] = []
    asked: list[str] = []

    def answer(app_code: str) -> str | None:
        asked.append(app_code)
        return next(answers)

    prober = Prober(
        answer, interval=0.01, fall=2, on_change=lambda failing: failed.append(dict(failing))
    )
    prober.observe(picture(OLD), NOTHING)
    prober.start()
    wait_for(lambda: len(asked) > 20, "probes")
    prober.stop()

    assert failed == []


def test_an_app_without_a_live_container_is_not_asked(apps: Apps) -> None:
    apps.seen["a"] = BAD
    apps.observe(OLD, container("b-1"))
    wait_for(lambda: apps.prober.failing == {"a": BAD}, "the fall")

    apps.observe(container("a-1", state="exited"), container("b-1"))
    assert apps.prober.failing == {}
    apps.is_asked("b", 2)
    asked = apps.asked.count("a")
    apps.is_asked("b", 5)

    assert apps.asked.count("a") == asked


def test_a_probe_from_before_a_restart_is_no_news() -> None:
    """A pass that was seen by a probe of the life before must not make the new life healthy."""
    waiting: list[str] = []
    gate: list[str | None] = []

    def answer(app_code: str) -> str | None:
        waiting.append(app_code)
        wait_for(lambda: gate, "the gate")
        return gate[0] if len(waiting) == 1 else BAD

    prober = Prober(answer, interval=0.01, fall=2, on_change=lambda _: None)
    prober.observe(picture(OLD), NOTHING)
    prober.start()
    wait_for(lambda: waiting, "a probe under way")
    prober.observe(picture(OLD), frozenset({OLD.id}))
    gate.append(None)

    wait_for(lambda: prober.failing == {"a": BAD}, "the new life's own probe")
    prober.stop()


def test_a_hanging_app_does_not_delay_the_others(apps: Apps) -> None:
    hung: list[str] = []
    answered: list[str] = []

    def answer(app_code: str) -> str | None:
        if app_code == "a":
            answered.append(app_code)
            return None
        hung.append(app_code)
        wait_for(lambda: not hung, "the end of the test")
        return BAD

    apps.prober._probe = answer
    apps.observe(OLD, *(container(f"hung{number}-1") for number in range(100)))
    wait_for(lambda: len(hung) == 100, "all to hang")
    before = len(answered)

    wait_for(lambda: len(answered) >= before + 5, "probes of the one that answers")
    assert len(hung) == 100
    hung.clear()


def test_the_prober_goes_on_when_a_probe_breaks(
    apps: Apps, caplog: pytest.LogCaptureFixture
) -> None:
    def answer(_: str) -> str | None:
        raise RuntimeError("the probe broke")

    caplog.set_level(logging.ERROR)
    apps.prober._probe = answer
    apps.observe(OLD)

    wait_for(lambda: "internal error" in apps.prober.failing.get("a", ""), "a failure")
    assert "the probe of a stumbled" in caplog.text


def test_the_prober_goes_on_when_it_stumbles_itself(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    apps = Apps()
    launch = apps.prober._launch_due
    stumbles = iter([True])

    def launch_once_broken() -> float:
        if next(stumbles, False):
            raise RuntimeError("no thread")
        return launch()

    monkeypatch.setattr(apps.prober, "_launch_due", launch_once_broken)
    apps.observe(OLD)
    apps.prober.start()
    apps.is_asked("a", 1)
    apps.prober.stop()

    assert "the prober stumbled" in caplog.text


def test_turns_are_at_the_same_moment_in_every_worker() -> None:
    def next_turn(now: float) -> float:
        prober = Prober(
            lambda _: None, interval=5, fall=2, on_change=lambda _: None, clock=lambda: now
        )
        return prober._next_turn("bk_iam")

    turn = next_turn(1000.1)

    assert 1000.1 < turn <= 1005.1
    assert next_turn(turn - 4.9) == turn
    assert next_turn(turn) == turn + 5
