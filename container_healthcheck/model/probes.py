"""The latest probe of an app, for those who look at it; what it means is judged in `serving`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LastProbe:
    """`asked_at` is in seconds since the epoch, it took `seconds`; `seen` is None for a pass."""

    seen: str | None
    asked_at: float
    seconds: float
