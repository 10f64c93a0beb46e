"""What the workers tell each other, in one order that all agree on.

A record goes through the ledger as one JSON array, its kind first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class MalformedRecordError(ValueError):
    """Something that is no record of this version."""


@dataclass(frozen=True, slots=True)
class Returned:
    """An app has come back: none of its containers was live before and all the time.

    `cause` names the engine's event that says so, the same on every worker, or is empty. `at` is
    the time of the telling, in seconds since the boot.
    """

    app_code: str
    cause: str
    at: float


@dataclass(frozen=True, slots=True)
class Probed:
    """A probe has ended; `seen` is None when it passed.

    `after` is the number of records that had been read when it was asked, `at` the time of its end
    in seconds since the boot.
    """

    app_code: str
    seen: str | None
    after: int
    at: float


@dataclass(frozen=True, slots=True)
class Changed:
    """The code of an app has changed, at a time in seconds since the epoch.

    `old` is None for an app that has appeared; `new` is 12 for one that has gone.
    """

    at: float
    app_code: str
    old: int | None
    new: int
    reason: str


@dataclass(frozen=True, slots=True)
class Found:
    """The codes of the apps that there were at the start; since when is not known."""

    codes: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Restored:
    """All that was known, in place of the records before: as Serving and History write it."""

    number: int
    serving: Mapping[str, Any]
    history: Mapping[str, Any]


Record = Returned | Probed | Changed | Found | Restored
_KINDS = {kind.__name__.lower(): kind for kind in (Returned, Probed, Changed, Found, Restored)}


def to_json(record: Record) -> list[Any]:
    """The record as JSON takes it."""
    return [type(record).__name__.lower(), *(getattr(record, each) for each in record.__slots__)]


def from_json(value: Any) -> Record:
    """The record that `to_json` has made so. Raises MalformedRecordError for anything else."""
    try:
        kind, *fields = value
        return _KINDS[kind](*fields)
    except (KeyError, TypeError, ValueError) as error:
        raise MalformedRecordError(f"not a record: {str(value)[:80]}") from error
