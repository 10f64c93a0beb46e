"""Counts by app: they only grow, and do not grow in number without end."""

from __future__ import annotations

from typing import TypeVar

MOST = 4096
"""Of more apps than these, those that were counted longest ago are forgotten."""

_V = TypeVar("_V")


def touch(counts: dict[str, _V], app_code: str, count: _V) -> None:
    """Sets an app's count, as the latest of all."""
    counts.pop(app_code, None)
    counts[app_code] = count
    if len(counts) > MOST:
        del counts[next(iter(counts))]
