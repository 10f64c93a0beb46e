"""The host state: messages make it, and the messages of a state make an equal one."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from container_healthcheck.model import message as messages
from container_healthcheck.model.container import Container
from container_healthcheck.model.counters import Counters, LastProbe
from container_healthcheck.model.drains import Drains, Mark
from container_healthcheck.model.history import Change, History
from container_healthcheck.model.host_state import HostState, state_of
from container_healthcheck.model.message import Message
from container_healthcheck.model.probe_state import GOOD, RESTARTED, ProbeState, ProbeStates
from container_healthcheck.model.snapshot import Snapshot, snapshot_of
from container_healthcheck.model.verdict import Code, Fault
from tests.unit.containers import PATTERN, container

EMPTY = HostState(PATTERN)
TIMEOUT = Fault(Code.ENGINE_FAULTY, "Docker does not answer in time")
A = {"1": container("a-1", id="1")}


def sent_over(state: HostState) -> HostState:
    """This state, as a follower or the next start of the service gets it."""
    lines = [json.dumps(messages.to_json(each)) for each in state.messages()]
    return state_of([messages.from_json(json.loads(line)) for line in lines], PATTERN)


def test_containers_and_probes_affect_their_apps() -> None:
    state, affected = EMPTY.after(Message(containers=A, probes={"b": RESTARTED}))

    assert affected == {"a", "a-1", "b"}
    assert state.snapshot.by_app["a"] == (A["1"],)
    assert state.probes.failing == {"b": RESTARTED.seen}
    assert HostState(PATTERN) == EMPTY


def test_what_says_nothing_changes_nothing() -> None:
    state, affected = EMPTY.after(Message(containers=A, probes={"b": RESTARTED}, engine_time=7))

    assert state.after(Message()) == (state, frozenset())
    assert affected
    assert state.after(Message(containers=A)) == (state, frozenset())


def test_a_full_list_ends_a_fault() -> None:
    state, _ = EMPTY.after(Message(confirmed_at=1, fault=TIMEOUT))
    assert (state.snapshot.confirmed_at, state.snapshot.fault) == (1, TIMEOUT)

    state, affected = state.after(Message(confirmed_at=2))

    assert (state.snapshot.confirmed_at, state.snapshot.fault) == (2, None)
    assert affected == frozenset()


def test_marks_take_the_place_of_all_others() -> None:
    state, _ = EMPTY.after(Message(drains=Drains({"a": Mark(1, None, "")})))
    state, _ = state.after(Message(confirmed_at=1))
    assert set(state.drains.marks) == {"a"}

    state, _ = state.after(Message(drains=Drains()))
    assert state.drains == Drains()


def test_a_history_takes_the_place_of_the_one_before() -> None:
    state, _ = EMPTY.after(Message(changes=[Change(1, "old", 0, 13, "")]))
    history = History().after({"a": 0}, [])

    state, _ = state.after(Message(history=history, changes=[Change(2, "a", 0, 13, "")]))

    assert state.history == history.after(None, [Change(2, "a", 0, 13, "")])


def test_a_large_state_is_sent_in_parts() -> None:
    containers = [container(f"app{number}-1") for number in range(1000)]
    snapshot = snapshot_of(containers, PATTERN, confirmed_at=1.5, fault=TIMEOUT)
    state = HostState(
        PATTERN,
        snapshot,
        ProbeStates().with_changes({"a": RESTARTED}),
        Drains({"b": Mark(1, None, "why")}),
        History().after({"a": 0}, [Change(2, "a", 0, 13, "")]),
        Counters({"a": LastProbe(None, 1.0, 0.5)}, {"a": {"timeout": 3}}, {"die": 1}),
        engine_time=7,
    )

    parts = list(state.messages())

    assert len(parts) == 21
    assert max(len(part.containers) for part in parts) == 50
    assert sent_over(state) == state
    assert state_of(parts, PATTERN, position=9) == replace(state, position=9)
    assert sent_over(EMPTY) == EMPTY


IDS = st.sampled_from("123")


def containers(container_id: str) -> st.SearchStrategy[Container | None]:
    names = st.sampled_from(["a-1", "a-2", "b-1"])
    states = st.sampled_from(["running", "exited"])
    made = st.builds(
        lambda name, state: container(name, id=container_id, state=state), names, states
    )
    return st.none() | made


APPS = st.sampled_from("ab")
CHANGES = st.builds(
    Change, st.just(1.5), APPS, st.none() | st.just(0), st.sampled_from([0, 12, 13]), st.just("")
)
MESSAGES = st.builds(
    Message,
    containers=st.dictionaries(IDS, st.none()).flatmap(
        lambda ids: st.fixed_dictionaries({each: containers(each) for each in ids})
    ),
    confirmed_at=st.none() | st.integers(0, 100).map(float),
    fault=st.none() | st.just(TIMEOUT),
    engine_time=st.integers(0, 5),
    probes=st.dictionaries(
        APPS, st.sampled_from([GOOD, RESTARTED, ProbeState(False, True, 2, 0, "502")])
    ),
    drains=st.none() | st.dictionaries(APPS, st.just(Mark(1.0, None, ""))).map(Drains),
    found=st.none() | st.dictionaries(APPS, st.sampled_from([0, 13])),
    changes=st.lists(CHANGES, max_size=3).map(tuple),
    last_probes=st.dictionaries(APPS, st.none() | st.just(LastProbe(None, 1.0, 0.5))),
    failures=st.dictionaries(APPS, st.just({"timeout": 2})),
    events=st.dictionaries(st.just("die"), st.integers(0, 9)),
)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.lists(MESSAGES, max_size=8))
def test_message_by_message_makes_what_the_full_state_makes(sequence: list[Message]) -> None:
    state = EMPTY
    for each in sequence:
        state, _ = state.after(each)
        assert sent_over(state) == state
        listed = state.snapshot.containers.values()
        fresh = snapshot_of(
            listed, PATTERN, confirmed_at=state.snapshot.confirmed_at, fault=state.snapshot.fault
        )
        assert state.snapshot == fresh
        failing = {app: its.seen for app, its in state.probes.states.items() if its.is_failing}
        assert state.probes.failing == failing
    assert isinstance(state.snapshot, Snapshot)
