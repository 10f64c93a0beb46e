"""The prober: whose turn it is, and who asks."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from container_healthcheck.observers.prober import (
    MOST_AT_ONCE,
    MOST_SLOTS,
    RETRY_INTERVAL,
    SHORTEST_SLOT,
    Prober,
)
from sandbox.waiting import wait_for

APPS = [f"app{number}" for number in range(100)]


class Asked:
    """A prober on a clock of the test's own, that does not run by itself."""

    def __init__(self, interval: float = 5, now: float = 1000.1) -> None:
        self.now = now
        self.asked: list[str] = []
        self.under_way: list[Callable[[], None]] = []
        self.holds = False
        self.on_ask: Callable[[str], object] = bool
        self.prober = Prober(
            self._ask, interval=interval, spawn=self._spawn, clock=lambda: self.now
        )
        for app_code in APPS:
            self.prober.set_live(app_code, is_live=True)

    def _ask(self, app_code: str) -> None:
        self.asked.append(app_code)
        self.on_ask(app_code)

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
    return Asked()


def test_each_app_is_asked_once_an_interval(asked: Asked) -> None:
    for _ in range(5):
        assert asked.pass_time(5) == Counter(APPS)


def test_the_turns_are_spread(asked: Asked) -> None:
    parts = [asked.pass_time(0.5) for _ in range(10)]

    assert sum(parts, Counter()) == Counter(APPS)
    assert all(parts)


def test_another_leader_continues_with_the_same_turns(asked: Asked) -> None:
    first = asked.pass_time(2)
    second = Asked(now=asked.now)

    assert first + second.pass_time(3) == Counter(APPS)


def test_a_late_prober_asks_each_app_once(asked: Asked) -> None:
    asked.now += 1000

    assert asked.pass_time(0.001) == Counter(APPS)


def test_an_app_out_of_turn_is_asked_at_once(asked: Asked) -> None:
    asked.pass_time(0.2)
    asked.prober.ask_soon("other")

    assert asked.pass_time(0.01) == Counter(["other"])


def test_an_app_that_needs_a_pass_is_asked_again_within_the_retry_interval(asked: Asked) -> None:
    asked.pass_time(0.2)
    for _ in range(5):
        asked.prober.ask_again("other")
        assert asked.pass_time(RETRY_INTERVAL)["other"] == 1


def test_a_retry_does_not_put_off_an_app_that_is_to_be_asked_at_once(asked: Asked) -> None:
    asked.pass_time(0.2)
    asked.prober.ask_soon("other")
    asked.prober.ask_again("other")

    assert asked.pass_time(0.01)["other"] == 1


def test_an_app_that_is_asked_again_has_no_other_turn_as_well() -> None:
    asked = Asked(interval=1)
    asked.on_ask = asked.prober.ask_again
    asked.pass_time(2)

    counts = asked.pass_time(10)

    assert set(counts.values()) <= {10, 11}


def test_retries_are_spread(asked: Asked) -> None:
    asked.pass_time(0.2)
    for app_code in APPS:
        asked.prober.ask_again(app_code)

    parts = [asked.pass_time(RETRY_INTERVAL / MOST_SLOTS) for _ in range(MOST_SLOTS)]

    assert all(asked_now.total() <= MOST_AT_ONCE for asked_now in parts)
    assert sum(bool(asked_now) for asked_now in parts) > MOST_SLOTS / 2


def test_of_many_apps_that_are_to_be_asked_soon_some_are_asked_at_once(asked: Asked) -> None:
    asked.pass_time(0.2)
    others = [f"other{number}" for number in range(100)]
    for app_code in others:
        asked.prober.ask_soon(app_code)

    parts = [asked.pass_time(SHORTEST_SLOT) - Counter(APPS) for _ in range(6)]

    assert [part.total() for part in parts] == [20, 20, 20, 20, 20, 0]
    assert sum(parts, Counter()) == Counter(others)


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
    asked.prober.set_live(APPS[0], is_live=False)

    assert asked.pass_time(10)[APPS[0]] == 0


def test_a_prober_that_was_stopped_asks_no_more() -> None:
    asked: list[str] = []
    prober = Prober(asked.append, interval=0.05)
    prober.set_live("a", is_live=True)
    prober.start()
    wait_for(lambda: asked, "a probe")

    prober.stop()
    prober._thread.join(60)
    count = len(asked)
    prober.ask_soon("a")

    assert not prober._thread.is_alive()
    assert len(asked) == count


@pytest.fixture
def running() -> Iterator[Callable[..., Prober]]:
    begun: list[Prober] = []

    def begin(ask: Callable[[str], None], **options: float) -> Prober:
        prober = Prober(ask, interval=0.05)
        begun.append(prober)
        prober.start()
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
        prober.set_live(app_code, is_live=True)
    wait_for(lambda: len(hung) == 100, "all to hang")
    prober.set_live("good", is_live=True)

    wait_for(lambda: len(answered) >= 5, "probes of the one that answers")
    assert len(hung) == 100
    over.append(True)


def test_the_prober_continues_when_a_probe_breaks(
    running: Callable[..., Prober], caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[str] = []

    def ask(app_code: str) -> None:
        asked.append(app_code)
        raise RuntimeError("the probe broke")

    caplog.set_level(logging.ERROR)
    running(ask).set_live("a", is_live=True)

    wait_for(lambda: len(asked) > 2, "more probes")
    assert "unexpected error in the probe of a; continuing" in caplog.text


def test_no_thread_for_a_probe_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    asked: list[str] = []
    breaks = iter([True, True])

    def spawn(work: Callable[[], None]) -> None:
        if next(breaks, False):
            raise RuntimeError("no thread")
        work()

    prober = Prober(asked.append, interval=0.05, spawn=spawn)
    prober.set_live("a", is_live=True)
    prober.start()
    wait_for(lambda: asked, "a probe")
    prober.stop()

    assert caplog.text.count("no thread for the probe of a") == 2


def test_the_prober_continues_after_an_error_of_its_own(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    prober = Prober(asked.append, interval=0.05)
    take = prober._take_due
    breaks = iter([True])

    def take_once_broken(now: float) -> set[str]:
        if next(breaks, False):
            raise RuntimeError("broken")
        return take(now)

    monkeypatch.setattr(prober, "_take_due", take_once_broken)
    prober.set_live("a", is_live=True)
    prober.start()
    wait_for(lambda: asked, "a probe")
    prober.stop()

    assert "unexpected error in the prober; continuing" in caplog.text
