"""Counters, and what is buffered until they are published."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from container_healthcheck.model.counters import MOST, Counters, LastProbe
from container_healthcheck.model.message import Message
from container_healthcheck.observers.counter_buffer import CounterBuffer

PASSED, REFUSED = LastProbe(None, 1.0, 0.1), LastProbe("Connection refused", 2.0, 0.2)


def test_newer_values_replace_older_ones() -> None:
    counters = Counters({"a": PASSED}, {"a": {"timeout": 1}}, {"die": 1})

    newer = counters.updated({"a": REFUSED, "b": PASSED}, {"a": {"timeout": 2}}, {"start": 5})

    assert newer == Counters(
        {"a": REFUSED, "b": PASSED}, {"a": {"timeout": 2}}, {"die": 1, "start": 5}
    )
    assert counters == Counters({"a": PASSED}, {"a": {"timeout": 1}}, {"die": 1})
    assert newer.updated({}, {}, {}) is newer


def test_a_probe_that_is_none_is_dropped() -> None:
    counters = Counters({"a": PASSED, "b": PASSED})

    assert counters.updated({"a": None, "c": None}, {}, {}).probes == {"b": PASSED}


def test_apps_that_come_and_go_do_not_fill_the_memory() -> None:
    counters = Counters().updated({}, {"old": {"timeout": 1}, "older": {"timeout": 1}}, {})
    counters = counters.updated({}, {f"job{number}": {"timeout": 1} for number in range(9)}, {})
    counters = counters.updated({}, {"old": {"timeout": 2}}, {})

    more = {f"more{number}": {"timeout": 1} for number in range(MOST - 1)}
    counters = counters.updated({}, more, {})

    assert len(counters.failures) == MOST
    assert counters.failures.keys() == {"old", *more}


@pytest.fixture
def buffer() -> CounterBuffer:
    return CounterBuffer(
        Counters({"a": PASSED}, {"a": {"refused": 5}, "b": {"timeout": 1}}, {"die": 7})
    )


def test_it_counts_on_from_what_was_published(buffer: CounterBuffer) -> None:
    buffer.add_events({"die": 2, "start": 1})
    buffer.add_events({"die": 1})
    buffer.add_probe("a", REFUSED)
    buffer.add_probe("a", LastProbe("502 Bad Gateway", 3.0, 0.1))
    buffer.add_probe("c", PASSED)

    message = buffer.added_to(Message(confirmed_at=1))

    assert message == Message(
        confirmed_at=1,
        last_probes={"a": LastProbe("502 Bad Gateway", 3.0, 0.1), "c": PASSED},
        failures={"a": {"refused": 6, "http_502": 1}},
        events={"die": 10, "start": 1},
    )


def test_what_a_message_says_itself_is_newer(buffer: CounterBuffer) -> None:
    buffer.add_probe("a", REFUSED)

    assert buffer.added_to(Message(last_probes={"a": None})).last_probes == {"a": None}


@pytest.mark.parametrize(
    "count",
    [
        lambda buffer: buffer.add_events({"die": 1}),
        lambda buffer: buffer.add_probe("a", PASSED),
    ],
)
def test_it_is_empty_until_something_is_counted(
    buffer: CounterBuffer, count: Callable[[CounterBuffer], None]
) -> None:
    was_empty = buffer.is_empty
    count(buffer)

    assert (was_empty, buffer.is_empty) == (True, False)


def test_what_was_published_is_not_published_again(buffer: CounterBuffer) -> None:
    buffer.add_probe("b", REFUSED)
    published = Counters({"b": REFUSED}, {"b": {"timeout": 1, "refused": 1}})

    buffer.clear(published)

    assert buffer.is_empty
    assert buffer.added_to(Message()) == Message()
    buffer.add_probe("b", REFUSED)
    assert buffer.added_to(Message()).failures == {"b": {"timeout": 1, "refused": 2}}


def test_a_probe_that_is_dropped_is_not_published_but_its_failure_is(
    buffer: CounterBuffer,
) -> None:
    assert buffer.is_shown("a") and not buffer.is_shown("c")
    buffer.add_probe("c", REFUSED)
    assert buffer.is_shown("c")

    buffer.drop_probe("c")

    assert not buffer.is_shown("c")
    message = buffer.added_to(Message())
    assert (message.last_probes, message.failures) == ({}, {"c": {"refused": 1}})
