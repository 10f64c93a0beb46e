"""The prober: whose turn it is, and who asks."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from container_healthcheck.observers.prober import Prober
from sandbox.waiting import wait_for

APPS = [f"app{number}" for number in range(100)]


class Asked:
    """A prober on a clock of the test's own, that does not run by itself."""

    def __init__(self, interval: float = 5) -> None:
        self.now = 1000.1
        self.asked: list[str] = []
        self.under_way: list[Callable[[], None]] = []
        self.holds = False
        self.prober = Prober(
            self.asked.append, interval=interval, spawn=self._spawn, clock=lambda: self.now
        )
        for app_code in APPS:
            self.prober.aim(app_code, is_live=True)

    def _spawn(self, work: Callable[[], None]) -> None:
        if self.holds:
            self.under_way.append(work)
        else:
            work()

    def pass_time(self, seconds: float) -> Counter[str]:
        """Lets time pass as the prober itself would wait; who was asked how often."""
        before = len(self.asked)
        end = self.now + seconds
        while True:
            left = self.prober._ask_due()
            if self.now + left >= end:
                break
            self.now += max(left, 0.001)
        self.now = end
        return Counter(self.asked[before:])


@pytest.fixture
def asked() -> Asked:
    asked = Asked()
    asked.prober.lead()
    return asked


def test_each_app_is_asked_once_an_interval(asked: Asked) -> None:
    for _ in range(5):
        assert asked.pass_time(5) == Counter(APPS)


def test_the_turns_are_spread(asked: Asked) -> None:
    parts = [asked.pass_time(0.5) for _ in range(10)]

    assert sum(parts, Counter()) == Counter(APPS)
    assert all(parts)


def test_another_lead_goes_on_with_the_same_turns(asked: Asked) -> None:
    first = asked.pass_time(2)
    second = Asked()
    second.now = asked.now
    second.prober.lead()

    assert first + second.pass_time(3) == Counter(APPS)


def test_who_was_late_asks_once(asked: Asked) -> None:
    asked.now += 1000

    assert asked.pass_time(0.001) == Counter(APPS)


def test_an_app_out_of_turn_is_asked_at_once_or_after_a_pause(asked: Asked) -> None:
    asked.pass_time(0.2)
    asked.prober.ask_soon("other")
    assert asked.pass_time(0.01)["other"] == 1
    asked.prober.ask_soon("other", 1)
    assert asked.pass_time(0.9)["other"] == 0
    assert asked.pass_time(0.2)["other"] == 1


def test_who_is_to_be_asked_at_once_is_not_put_off(asked: Asked) -> None:
    asked.pass_time(0.2)
    asked.prober.ask_soon("other")
    asked.prober.ask_soon("other", 1)

    assert asked.pass_time(0.01)["other"] == 1


def test_an_app_that_is_being_asked_is_not_asked_beside(asked: Asked) -> None:
    asked.holds = True
    asked.pass_time(20)
    assert len(asked.under_way) == len(APPS)

    asked.prober.ask_soon(APPS[0])
    asked.pass_time(1)
    assert len(asked.under_way) == len(APPS)

    asked.holds = False
    for work in asked.under_way:
        work()
    assert asked.pass_time(0.001)[APPS[0]] == 1


def test_an_app_without_a_live_container_is_not_asked(asked: Asked) -> None:
    asked.prober.ask_soon(APPS[0])
    asked.prober.aim(APPS[0], is_live=False)

    assert asked.pass_time(10)[APPS[0]] == 0


def test_who_does_not_lead_asks_nobody() -> None:
    asked = Asked()
    asked.prober.ask_soon(APPS[0])
    asked.prober.start()
    asked.prober.lead()
    asked.now += 5
    wait_for(lambda: len(asked.asked) == len(APPS), "the first turns as the lead")
    asked.prober.stop()


@pytest.fixture
def running() -> Iterator[Callable[..., Prober]]:
    begun: list[Prober] = []

    def begin(ask: Callable[[str], None], **options: float) -> Prober:
        prober = Prober(ask, interval=0.05)
        begun.append(prober)
        prober.start()
        prober.lead()
        return prober

    yield begin
    for prober in begun:
        prober.stop()


def test_a_hanging_app_does_not_delay_the_others(running: Callable[..., Prober]) -> None:
    hung: list[str] = []
    answered: list[str] = []
    over: list[bool] = []

    def ask(app_code: str) -> None:
        if app_code == "good":
            answered.append(app_code)
            return
        hung.append(app_code)
        wait_for(lambda: over, "the end of the test")

    prober = running(ask)
    for app_code in APPS:
        prober.aim(app_code, is_live=True)
    wait_for(lambda: len(hung) == 100, "all to hang")
    prober.aim("good", is_live=True)

    wait_for(lambda: len(answered) >= 5, "probes of the one that answers")
    assert len(hung) == 100
    over.append(True)


def test_the_prober_goes_on_when_a_probe_breaks(
    running: Callable[..., Prober], caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[str] = []

    def ask(app_code: str) -> None:
        asked.append(app_code)
        raise RuntimeError("the probe broke")

    caplog.set_level(logging.ERROR)
    running(ask).aim("a", is_live=True)

    wait_for(lambda: len(asked) > 2, "more probes")
    assert "the probe of a stumbled" in caplog.text


def test_no_thread_for_a_probe_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    asked: list[str] = []
    breaks = iter([True, True])

    def spawn(work: Callable[[], None]) -> None:
        if next(breaks, False):
            raise RuntimeError("no thread")
        work()

    prober = Prober(asked.append, interval=0.05, spawn=spawn)
    prober.aim("a", is_live=True)
    prober.start()
    prober.lead()
    wait_for(lambda: asked, "a probe")
    prober.stop()

    assert caplog.text.count("no thread for the probe of a") == 2


def test_the_prober_goes_on_when_it_stumbles_itself(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    prober = Prober(asked.append, interval=0.05)
    take = prober._take_due
    stumbles = iter([True])

    def take_once_broken(now: float) -> set[str]:
        if next(stumbles, False):
            raise RuntimeError("broken")
        return take(now)

    monkeypatch.setattr(prober, "_take_due", take_once_broken)
    prober.aim("a", is_live=True)
    prober.start()
    prober.lead()
    wait_for(lambda: asked, "a probe")
    prober.stop()

    assert "the prober stumbled" in caplog.text
