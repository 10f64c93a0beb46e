"""The latest probe of an app, for those who look at it; what it means is judged in `serving`."""

from __future__ import annotations

from typing import NamedTuple


class LastProbe(NamedTuple):
    """`asked_at` is in seconds since the epoch, it took `seconds`; `seen` is None for a pass."""

    seen: str | None
    asked_at: float
    seconds: float
