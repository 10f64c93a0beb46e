"""Since when each app's code is what it is, the latest changes, and how many there were.

The same on every worker.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from container_healthcheck.model.counts import touch
from container_healthcheck.model.records import Changed, Found, to_json
from container_healthcheck.model.verdict import Code

KEPT = 200


class Known(NamedTuple):
    """An app's code, and since when: seconds since the epoch, None when that is not known."""

    code: int
    since: float | None


class History:
    """What has been written down of the apps' codes.

    `has_begun` is true once the codes that this service found are in it; `counts` are the changes
    of each app, also of one that has gone; `revision` counts what this worker has heard of.
    """

    def __init__(self) -> None:
        self.revision = 0
        self.known: dict[str, Known] = {}
        self.counts: dict[str, int] = {}
        self.has_begun = False
        self._changes: deque[Changed] = deque(maxlen=KEPT)

    @property
    def changes(self) -> Sequence[Changed]:
        """The latest changes, newest first."""
        return tuple(reversed(self._changes))

    def since(self, app_code: str, code: int) -> float | None:
        """Since when the app has this code, or None when that is not known."""
        known = self.known.get(app_code)
        return known.since if known is not None and known.code == code else None

    def found(self, record: Found) -> None:
        """Takes the codes of the start."""
        self.has_begun = True
        self.revision += 1
        for app_code, code in record.codes.items():
            self.known[app_code] = Known(code, None)

    def changed(self, record: Changed) -> None:
        """Takes one change."""
        self.revision += 1
        self._changes.append(record)
        touch(self.counts, record.app_code, self.counts.get(record.app_code, 0) + 1)
        if record.new == Code.NO_CONTAINER:
            self.known.pop(record.app_code, None)
        else:
            self.known[record.app_code] = Known(record.new, record.at)

    def to_json(self) -> dict[str, Any]:
        """What `restore` takes."""
        return {
            "known": dict(self.known),
            "changes": [to_json(change) for change in self._changes],
            "counts": dict(self.counts),
            "has_begun": self.has_begun,
        }

    def restore(self, value: Mapping[str, Any]) -> None:
        """Puts what `to_json` gave in place of what is known. Raises ValueError for anything else.

        When it raises, nothing has changed.
        """
        try:
            known = {str(code): _known(*fields) for code, fields in value["known"].items()}
            changes = [_change(*fields) for _, *fields in value["changes"]]
            # A file of before there were counts has none.
            counts = {str(code): _count(count) for code, count in value.get("counts", {}).items()}
            has_begun = bool(value["has_begun"])
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"not what was known of codes: {error!r}") from error
        self.known = known
        self._changes = deque(changes, maxlen=KEPT)
        self.counts = counts
        self.has_begun = has_begun
        self.revision += 1


def _known(code: int, since: float | None) -> Known:
    return Known(Code(code), None if since is None else _time(since))


def _change(at: float, app_code: str, old: int | None, new: int, reason: str) -> Changed:
    return Changed(
        _time(at), str(app_code), None if old is None else Code(old), Code(new), str(reason)
    )


def _count(count: Any) -> int:
    if type(count) is not int or count < 0:
        raise ValueError(f"{count!r} is no count")
    return count


def _time(seconds: float) -> float:
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"{seconds!r} is no time")
    return float(seconds)
