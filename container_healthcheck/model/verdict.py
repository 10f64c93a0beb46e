"""The verdict: whether requests for an app should come to this host.

No knowledge, no verdict: without a fresh snapshot of the host's containers the answer is the fault
that keeps it from being fresh, and never a guess.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from container_healthcheck.model.container import Container


class Code(IntEnum):
    """The `code` of an answer."""

    HEALTHY = 0
    ENGINE_UNREACHABLE = 10
    ENGINE_FAULTY = 11
    NO_CONTAINER = 12
    NOT_HEALTHY = 13
    NOT_SERVING = 14
    DRAINED = 15
    BAD_APP_CODE = 20
    BAD_REQUEST = 21


@dataclass(frozen=True, slots=True)
class Fault:
    """Why the engine is not answering now: a code (10 or 11) and a sentence for the operator."""

    code: Code
    text: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check answers.

    `container` is the one that serves, when healthy; `reason` says why not, when not.
    `containers` are all that belong to the app, newest first.
    """

    app_code: str
    code: Code
    reason: str
    container: Container | None
    containers: Sequence[Container]

    @property
    def is_healthy(self) -> bool:
        """True when requests should come here."""
        return self.code is Code.HEALTHY


def evaluate(
    app_code: str,
    *,
    drain: str | None,
    fault: Fault | None,
    candidates: Sequence[Container],
    probe_failure: str | None,
) -> Verdict:
    """The verdict on one app.

    `drain` is why the app is drained, or None; `fault` why there is no fresh snapshot, or None;
    `candidates` are the app's containers, newest first; `probe_failure` is what the probe of the
    app saw when the app counts as failing, or None.
    """

    def verdict(code: Code, reason: str = "", container: Container | None = None) -> Verdict:
        return Verdict(app_code, code, reason, container, candidates)

    if drain is not None:
        return verdict(Code.DRAINED, drain)
    if fault is not None:
        return verdict(fault.code, fault.text)
    if not candidates:
        return verdict(Code.NO_CONTAINER, f"no container of {app_code} on this host")
    live = next((container for container in candidates if container.is_live), None)
    if live is None:
        return verdict(Code.NOT_HEALTHY, _why_not_live(candidates[0]))
    if probe_failure is not None:
        return verdict(
            Code.NOT_SERVING,
            f"{live.name} is running, but the app does not answer: {probe_failure}",
        )
    return verdict(Code.HEALTHY, container=live)


def _why_not_live(container: Container) -> str:
    state = container.health if container.state == "running" else container.state
    return f"{container.name} is {state or 'in no known state'}: {container.status or 'no status'}"
