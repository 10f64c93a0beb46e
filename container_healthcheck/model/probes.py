"""What probes saw, for those who look at it; what it means is judged in `serving`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

TIMEOUT = "no answer within"
CLOSED = "connection closed without an answer"
NOT_HTTP = "an answer that is not HTTP"
REFUSED = "Connection refused"
NO_PID_FILE = "nginx's own 404 page (the app has no pid file)"
INTERNAL = "internal error"
GATEWAY_ERRORS = {502: "Bad Gateway", 503: "Service Unavailable", 504: "Gateway Time-out"}

_REASONS = {
    TIMEOUT: "timeout",
    CLOSED: "closed",
    NOT_HTTP: "not_http",
    REFUSED: "refused",
    NO_PID_FILE: "no_pid_file",
    INTERNAL: "internal",
    **{f"{status} {phrase}": f"http_{status}" for status, phrase in GATEWAY_ERRORS.items()},
}
_OTHER = "unreachable"
REASONS = (*_REASONS.values(), _OTHER)
"""Every `reason_of` there is."""


class LastProbe(NamedTuple):
    """`asked_at` is in seconds since the epoch, it took `seconds`; `seen` is None for a pass."""

    seen: str | None
    asked_at: float
    seconds: float


class Observed(NamedTuple):
    """What the worker that leads has seen, for all to show.

    The latest probe of each app; how many probes have failed, by app and reason; how many events
    the engine has told of, by action.
    """

    probes: Mapping[str, LastProbe] = {}
    failures: Mapping[str, Mapping[str, int]] = {}
    events: Mapping[str, int] = {}


def reason_of(seen: str) -> str:
    """What a failed probe saw, as one of a few words."""
    return next((word for text, word in _REASONS.items() if seen.startswith(text)), _OTHER)
