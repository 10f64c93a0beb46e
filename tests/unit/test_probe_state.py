"""What probes make of an app: failures and passes in a row, and the pass after a restart."""

from __future__ import annotations

import pytest

from container_healthcheck.model.probe_state import (
    GOOD,
    NOT_PROBED_YET,
    RESTARTED,
    ProbeState,
    ProbeStates,
    after_probe,
)

BAD = "502 Bad Gateway"


def probed(*seen: str | None, state: ProbeState = GOOD, fall: int = 2, rise: int = 1) -> ProbeState:
    """The state after these probes; None is a pass."""
    for each in seen:
        state = after_probe(state, each, fall=fall, rise=rise)
    return state


def test_an_app_that_nothing_has_happened_to_is_good() -> None:
    assert ProbeStates().failing == {}
    assert ProbeStates().of("a") is GOOD
    assert not GOOD.is_failing
    assert probed(None) == GOOD


def test_failures_in_a_row_count_and_one_pass_clears() -> None:
    assert not probed(BAD).is_failing
    assert probed(BAD, BAD).is_failing
    assert probed(BAD, BAD, "503").seen == "503"
    assert probed(BAD, BAD, None) == GOOD


def test_failures_that_are_not_in_a_row_do_not_count() -> None:
    assert probed(*[BAD, None] * 10) == GOOD
    assert not probed(*[BAD, None] * 10, BAD).is_failing


def test_as_many_passes_as_rise_make_it_healthy_again() -> None:
    state = probed(BAD, None, None, BAD, None, None, fall=1, rise=3)
    assert state.is_failing
    assert state.seen == BAD

    assert probed(None, state=state, fall=1, rise=3) == GOOD


def test_an_app_that_has_restarted_needs_a_pass() -> None:
    assert RESTARTED.is_failing
    assert RESTARTED.seen == NOT_PROBED_YET
    failed = probed(BAD, state=RESTARTED)
    assert failed.is_failing and failed.needs_pass and failed.seen == BAD
    assert probed(None, state=RESTARTED) == GOOD
    assert probed(BAD, BAD, None, state=RESTARTED) == GOOD
    assert probed(None, state=RESTARTED, rise=2).is_failing


def test_a_failure_between_two_passes_starts_the_count_of_passes_again() -> None:
    state = probed(BAD, BAD, None, BAD, fall=2, rise=2)

    assert state.is_failing
    assert probed(None, state=state, rise=2).is_failing
    assert probed(None, None, state=state, rise=2) == GOOD


@pytest.mark.parametrize("start", [GOOD, RESTARTED])
@pytest.mark.parametrize(("fall", "rise"), [(1, 1), (2, 1), (3, 5), (100, 100)])
def test_what_is_known_already_leaves_the_state_equal(
    start: ProbeState, fall: int, rise: int
) -> None:
    failing = probed(*[BAD] * fall, state=start, fall=fall, rise=rise)
    assert probed(*[BAD] * 50, state=failing, fall=fall, rise=rise) == failing
    assert probed("503", state=failing, fall=fall, rise=rise) != failing
    assert probed(*[None] * rise, state=failing, fall=fall, rise=rise) == GOOD


def test_states_are_kept_of_apps_that_something_has_happened_to() -> None:
    once = probed(BAD)
    states = ProbeStates().with_changes({"a": RESTARTED, "b": once, "c": GOOD})

    assert states.states == {"a": RESTARTED, "b": once}
    assert states.failing == {"a": NOT_PROBED_YET}
    assert states.of("c") == GOOD


def test_what_is_failing_is_the_same_object_until_it_changes() -> None:
    states = ProbeStates().with_changes({"a": RESTARTED})
    failing = states.failing

    states = states.with_changes(
        {"b": probed(BAD), "a": ProbeState(True, False, 1, 0, NOT_PROBED_YET)}
    )
    assert states.failing is failing

    states = states.with_changes({"b": probed(BAD, BAD)})
    assert states.failing == {"a": NOT_PROBED_YET, "b": BAD}
    states = states.with_changes({"a": GOOD, "b": probed(BAD, "503")})
    assert states.failing == {"b": "503"}
    assert states.with_changes({"b": GOOD}) == ProbeStates()
