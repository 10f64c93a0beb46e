"""Since when each app's code is what it is, the latest changes, and how many there were."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from container_healthcheck.model.counters import touch
from container_healthcheck.model.verdict import Code

KEPT = 200


class Known(NamedTuple):
    """An app's code, and since when: seconds since the epoch, None when that is not known."""

    code: int
    since: float | None


@dataclass(frozen=True, slots=True)
class Change:
    """The code of an app has changed, at a time in seconds since the epoch.

    `old` is None for an app that has appeared; `new` is 12 for one that has gone. They are equal
    for a restart that was over before any answer could show it.
    """

    at: float
    app_code: str
    old: int | None
    new: int
    reason: str


@dataclass(frozen=True, slots=True)
class History:
    """What has been recorded of the apps' codes.

    `known` holds each app's code; `counts` are the changes of each app, also of one that has gone;
    `oldest_first` are the latest changes. `has_begun` is true once the codes that this service
    found are recorded.
    """

    known: Mapping[str, Known] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    oldest_first: Sequence[Change] = ()
    has_begun: bool = False

    @property
    def changes(self) -> Sequence[Change]:
        """The latest changes, newest first."""
        return tuple(reversed(self.oldest_first))

    def since(self, app_code: str, code: int) -> float | None:
        """Since when the app has this code, or None when that is not known."""
        known = self.known.get(app_code)
        return known.since if known is not None and known.code == code else None

    def after(self, found: Mapping[str, int] | None, changes: Iterable[Change]) -> History:
        """This history, and what has happened since.

        `found` are the codes of apps that were there at the start, since when is not known; None
        unless this is the start.
        """
        known, counts = dict(self.known), dict(self.counts)
        known.update({app_code: Known(code, None) for app_code, code in (found or {}).items()})
        changes = tuple(changes)
        for change in changes:
            touch(counts, change.app_code, counts.get(change.app_code, 0) + 1)
            if change.new == Code.NO_CONTAINER:
                known.pop(change.app_code, None)
            elif change.new != change.old:
                known[change.app_code] = Known(change.new, change.at)
        latest = (*self.oldest_first, *changes)[-KEPT:]
        return History(known, counts, latest, self.has_begun or found is not None)

    def before_start(self) -> History:
        """This history, for a service that is yet to compare it with what it finds."""
        return replace(self, has_begun=False)

    def to_json(self) -> dict[str, Any]:
        """What `from_json` takes."""
        return {
            "known": self.known,
            "changes": [change_to_json(change) for change in self.oldest_first],
            "counts": self.counts,
            "has_begun": self.has_begun,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> History:
        """The history that `to_json` has given. Raises ValueError for anything else."""
        try:
            known = {str(code): _known(*fields) for code, fields in value["known"].items()}
            changes = tuple(change_from_json(fields) for fields in value["changes"])
            counts = {str(code): _count(count) for code, count in value["counts"].items()}
            return cls(known, counts, changes[-KEPT:], value["has_begun"] is True)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"not a history: {error!r}") from error


def change_to_json(change: Change) -> list[Any]:
    """What `change_from_json` takes."""
    return [change.at, change.app_code, change.old, change.new, change.reason]


def change_from_json(fields: Sequence[Any]) -> Change:
    """The change that `change_to_json` has given. Raises TypeError or ValueError."""
    at, app_code, old, new, reason = fields
    old = None if old is None else int(Code(old))
    return Change(_time(at), str(app_code), old, int(Code(new)), str(reason))


def _known(code: int, since: float | None) -> Known:
    return Known(int(Code(code)), None if since is None else _time(since))


def _count(count: Any) -> int:
    if type(count) is not int or count < 0:
        raise ValueError(f"{count!r} is not a count")
    return count


def _time(seconds: float) -> float:
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"{seconds!r} is not a time")
    return float(seconds)
