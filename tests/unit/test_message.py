"""Messages: what is read is what was written, and anything else is refused in one way."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from container_healthcheck.model import message as messages
from container_healthcheck.model.counters import LastProbe
from container_healthcheck.model.drains import HOST, Drains, Mark
from container_healthcheck.model.history import Change, History
from container_healthcheck.model.message import MalformedMessageError, Message
from container_healthcheck.model.probe_state import RESTARTED, ProbeState
from container_healthcheck.model.verdict import Code, Fault
from tests.unit.containers import container

CHANGE = Change(2.5, "a", 0, 14, "502 Bad Gateway")
FULL = Message(
    containers={"1": container(ports=[{"PrivatePort": 80}]), "2": None},
    confirmed_at=12.5,
    fault=Fault(Code.ENGINE_FAULTY, "Docker does not answer in time"),
    engine_time=1_800_000_000_000_000_001,
    probes={"a": RESTARTED, "b": ProbeState(False, True, 2, 1, "502 Bad Gateway")},
    drains=Drains({HOST: Mark(1.5, None, "维护"), "a": Mark(1, 2, "", "it is not a file")}),
    found={"a": 0, "b": 13},
    changes=(CHANGE, Change(3.0, "c", None, 0, "c-1 Up")),
    history=History().after({"a": 0, "b": 13}, [CHANGE]),
    last_probes={"a": LastProbe("502", 7.25, 0.5), "b": LastProbe(None, 1.0, 0.1), "c": None},
    failures={"a": {"http_502": 3}},
    events={"die": 2},
)
NAMES = list(messages.to_json(FULL))


def as_sent(message: Message) -> Any:
    return json.loads(json.dumps(messages.to_json(message)))


def only(name: str) -> Message:
    return Message(**{name: getattr(FULL, name)})


def test_each_field_has_a_place_in_the_full_message() -> None:
    assert list(Message.__dataclass_fields__) == NAMES


@pytest.mark.parametrize("message", [FULL, Message(), Message(drains=Drains(), found={})])
def test_what_is_read_is_what_was_written(message: Message) -> None:
    assert messages.from_json(as_sent(message)) == message


@pytest.mark.parametrize("name", NAMES)
def test_a_message_has_keys_for_what_it_says_and_no_others(name: str) -> None:
    assert list(messages.to_json(only(name))) == [name]
    assert messages.from_json(as_sent(only(name))) == only(name)
    assert only(name).says_something


def test_only_counters_are_not_worth_saving() -> None:
    assert not Message().says_something
    assert {name for name in NAMES if not only(name).is_worth_saving} == {
        "last_probes",
        "failures",
        "events",
    }


def test_an_empty_set_of_marks_says_that_nothing_is_drained() -> None:
    assert Message(drains=Drains()).says_something
    assert messages.from_json({"drains": {}}).drains == Drains()


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        "x",
        7,
        {"nothing": 1},
        {"containers": []},
        {"containers": {"1": []}},
        {"containers": {"1": ["1"]}},
        {"containers": {"1": ["1", 2, "", "", 0, "running", "", "", []]}},
        {"containers": {"1": ["1", "a-1", "", "", "soon", "running", "", "", []]}},
        {"containers": {"1": ["1", "a-1", "", "", 0, "running", "", [], []]}},
        {"confirmed_at": "soon"},
        {"confirmed_at": None},
        {"confirmed_at": float("nan")},
        {"confirmed_at": float("inf")},
        {"confirmed_at": 10**400},
        {"fault": []},
        {"fault": [11]},
        {"fault": [99, "x"]},
        {"fault": {}},
        {"engine_time": 1.5},
        {"engine_time": True},
        {"probes": {"a": [True, False, 0, 0]}},
        {"probes": {"a": [1, 0, 0, 0, ""]}},
        {"probes": {"a": [[[]]]}},
        {"drains": {"a": {}}},
        {"drains": {"a": {"since": "x", "until": None, "reason": ""}}},
        {"drains": {"a": {"since": 1e300, "until": None, "reason": ""}}},
        {"drains": {"a": {"since": 1e17, "until": None, "reason": ""}}},
        {"drains": {"a": {"since": 0, "until": float("nan"), "reason": ""}}},
        {"drains": {"a": {"since": 0, "until": None, "reason": 7}}},
        {"drains": {"a": {"since": 0, "until": None, "reason": "", "problem": 7}}},
        {"found": {"a": 1}},
        {"found": {"a": "0"}},
        {"changes": [[]]},
        {"changes": [[-1, "a", 0, 0, ""]]},
        {"changes": [[1, "a", 0, 99, ""]]},
        {"changes": 5},
        {"history": {}},
        {"history": {"known": [], "changes": [], "counts": {}, "has_begun": True}},
        {"history": {"known": {}, "changes": [], "counts": {"a": -1}, "has_begun": True}},
        {"last_probes": {"a": []}},
        {"last_probes": {"a": ["x", "soon", 1]}},
        {"last_probes": {"a": [None, float("nan"), 1]}},
        {"failures": {"a": 3}},
        {"failures": {"a": {"timeout": "3"}}},
        {"events": {"die": 1.5}},
    ],
)
def test_anything_else_is_refused(value: Any) -> None:
    with pytest.raises(MalformedMessageError, match=r"^not a message: ") as raised:
        messages.from_json(value)

    assert len(str(raised.value)) <= 200 and "\n" not in str(raised.value)


def test_what_is_nested_too_deeply_is_refused() -> None:
    nested: Any = []
    for _ in range(100_000):
        nested = [nested]

    for name in NAMES:
        with pytest.raises(MalformedMessageError):
            messages.from_json({name: nested})
    while nested:
        nested = nested.pop()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=10) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=20,
)


def put(value: Any, place: Any, new: Any) -> Any:
    """A copy of this value with another part."""
    changed = value.copy()
    changed[place] = new
    return changed


def spoiled(value: Any) -> st.SearchStrategy[Any]:
    """This value with something else in one place."""
    places = [JSON]
    if isinstance(value, dict):
        places += [spoiled(value[key]).map(partial(put, value, key)) for key in value]
    elif isinstance(value, list):
        places += [spoiled(each).map(partial(put, value, at)) for at, each in enumerate(value)]
    return st.one_of(places)


@settings(derandomize=True, max_examples=500, deadline=None)
@given(spoiled(as_sent(FULL)) | st.dictionaries(st.sampled_from(NAMES), JSON))
def test_nothing_makes_another_error(value: Any) -> None:
    try:
        message = messages.from_json(value)
    except MalformedMessageError:
        return
    # What is taken can be sent on.
    assert messages.from_json(as_sent(message)) == message
