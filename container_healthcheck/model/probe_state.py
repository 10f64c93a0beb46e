"""What the probes of an app have shown: whether it may be called healthy.

Pure transitions. An app that has restarted needs a pass; `fall` failures in a row make an app fail,
`rise` passes in a row make it healthy again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

NOT_PROBED_YET = "it has just started and has not been probed yet"


@dataclass(frozen=True, slots=True)
class ProbeState:
    """One app. A state that equals `GOOD` says nothing and is not kept.

    `needs_pass` from a restart until the app is healthy, `is_down` from the failure that counts
    until it is healthy; `failures` and `passes` in a row; `seen` is what the last failed probe saw.
    """

    needs_pass: bool = False
    is_down: bool = False
    failures: int = 0
    passes: int = 0
    seen: str = ""

    @property
    def is_failing(self) -> bool:
        """True when the app must not be called healthy."""
        return self.needs_pass or self.is_down


GOOD = ProbeState()
RESTARTED = ProbeState(needs_pass=True, seen=NOT_PROBED_YET)


def after_probe(state: ProbeState, seen: str | None, *, fall: int, rise: int) -> ProbeState:
    """The state after one more probe; `seen` is None for a pass.

    A probe that shows what is known already leaves the state equal: a failing app is published
    once, not with every probe.
    """
    if seen is not None:
        failures = min(state.failures + 1, fall)
        is_down = state.is_down or failures >= fall
        return replace(state, failures=failures, passes=0, is_down=is_down, seen=seen)
    if state.is_failing and state.passes + 1 < rise:
        return replace(state, failures=0, passes=state.passes + 1)
    return GOOD


@dataclass(frozen=True, slots=True)
class ProbeStates:
    """The states of all apps that something has happened to.

    `failing` holds what was seen of each app that must not be called healthy.
    """

    states: Mapping[str, ProbeState] = field(default_factory=dict)
    failing: Mapping[str, str] = field(default_factory=dict)

    def of(self, app_code: str) -> ProbeState:
        """The state of one app."""
        return self.states.get(app_code, GOOD)

    def with_changes(self, changes: Mapping[str, ProbeState]) -> ProbeStates:
        """These states, with those in `changes` in place of theirs."""
        states, failing = dict(self.states), self.failing
        for app_code, state in changes.items():
            if state == GOOD:
                states.pop(app_code, None)
            else:
                states[app_code] = state
        if any(self._differs(app_code, state) for app_code, state in changes.items()):
            failing = {code: state.seen for code, state in states.items() if state.is_failing}
        return ProbeStates(states, failing)

    def _differs(self, app_code: str, state: ProbeState) -> bool:
        return self.failing.get(app_code) != (state.seen if state.is_failing else None)
