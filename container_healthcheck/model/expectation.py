"""What events let expect of a container, while the engine's own list is still behind.

The engine announces some changes before its list shows them: a `die` by milliseconds, or by seconds
when many containers end at once. Until the list agrees, bad news from an event counts; good news
(`start`, `unpause`, `healthy`) is left to the list, which knows more, such as a HEALTHCHECK.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from container_healthcheck.model.container import Container

_STATES = {
    "create": "there",
    "die": "ended",
    "stop": "ended",
    "start": "running",
    "restart": "running",
    "unpause": "running",
    "pause": "paused",
    "destroy": "gone",
}
_HEALTH = "health_status"


@dataclass(frozen=True, slots=True)
class Expectation:
    """What is to be expected of one container; None where nothing is."""

    state: str | None = None
    health: str | None = None
    name: str | None = None
    exit_code: str = "?"

    def after(self, action: str, attributes: Mapping[str, str]) -> Expectation:
        """This expectation, after one more event."""
        if action == "rename":
            return replace(self, name=attributes.get("name", "").lstrip("/") or None)
        kind, _, health = action.partition(": ")
        if kind == _HEALTH:
            return replace(self, health=health or None)
        if action not in _STATES:
            return self
        state, exit_code = _STATES[action], attributes.get("exitCode", self.exit_code)
        return replace(self, state=state, health=None, exit_code=exit_code)

    def is_met(self, listed: Container | None) -> bool:
        """True when the list agrees."""
        if listed is None:
            return self.state in ("gone", None)
        return (
            self._is_state_met(listed)
            and self.health in (None, listed.health)
            and self.name in (None, listed.name)
        )

    def applied_to(self, listed: Container | None) -> Container | None:
        """The container as it has to be thought of: as listed, but for bad news."""
        if listed is None or self.state == "gone":
            return None
        if self._is_state_met(listed):
            return replace(listed, health="unhealthy") if self.health == "unhealthy" else listed
        if self.state == "ended":
            return replace(listed, state="exited", status=f"Exited ({self.exit_code})", health="")
        if self.state == "paused":
            return replace(listed, state="paused", status=f"{listed.status} (Paused)")
        return listed

    def _is_state_met(self, listed: Container) -> bool:
        if self.state == "ended":
            return listed.state not in ("running", "paused")
        return self.state in (None, "there", listed.state)
