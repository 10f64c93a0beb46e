"""What a probe can see, in the words of messages and as the `reason` of a metric."""

from __future__ import annotations

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
"""Every value of `reason_of`."""


def reason_of(seen: str) -> str:
    """What a failed probe saw, as one of a few words."""
    return next((word for text, word in _REASONS.items() if seen.startswith(text)), _OTHER)
