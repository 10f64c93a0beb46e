"""Drain marks: an app, or the whole host, taken out on purpose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

HOST = "_host"
"""Stands for the whole host where an app code stands for an app; no app code begins with `_`."""


@dataclass(frozen=True, slots=True)
class Mark:
    """One drain. Times are in seconds since the epoch; `until` is None for an open end.

    A mark that cannot be read counts: whoever made it meant something by it. `problem` says why.
    """

    since: float
    until: float | None
    reason: str
    problem: str = ""

    def is_over(self, now: float) -> bool:
        """True when its time is up."""
        return self.until is not None and self.until <= now

    def sentence(self, what: str) -> str:
        """The mark in words: what is drained, since when, until when and why."""
        if self.problem:
            return f"{what} counts as drained: its mark cannot be read: {self.problem}"
        until = "undrained" if self.until is None else _local(self.until)
        reason = self.one_line or "no reason given"
        return f"{what} is drained since {_local(self.since)} until {until}: {reason}"

    @property
    def one_line(self) -> str:
        """The reason on one line, whatever is in the file: it is logged and shown."""
        return _one_line(self.reason)


@dataclass(frozen=True, slots=True)
class Drains:
    """All marks in force at one moment."""

    marks: Mapping[str, Mark] = field(default_factory=dict)

    def reason(self, app_code: str) -> str | None:
        """Why the app is drained, or None when it is not."""
        if (mark := self.marks.get(HOST)) is not None:
            return mark.sentence("this host")
        if (mark := self.marks.get(app_code)) is not None:
            return mark.sentence(app_code)
        return None

    @property
    def apps(self) -> frozenset[str]:
        """The apps that have a mark of their own."""
        return frozenset(self.marks.keys() - {HOST})

    def changed_since(self, old: Drains) -> frozenset[str]:
        """The apps (and HOST) whose mark is another than it was."""
        return frozenset(
            name
            for name in self.marks.keys() | old.marks.keys()
            if self.marks.get(name) != old.marks.get(name)
        )


def _one_line(text: str) -> str:
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())


def _local(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(sep=" ", timespec="seconds")
