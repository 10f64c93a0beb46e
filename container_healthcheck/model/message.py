"""A message: what the leader has observed, as facts that every worker applies to its host state.

What belongs together travels in one message: no worker sees a restarted container without also
seeing that its app needs a pass. A message travels, and is kept in the state file, as one JSON
object that has a key for each field that says something.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime
from typing import Any

from container_healthcheck.model.container import Container
from container_healthcheck.model.counters import LastProbe
from container_healthcheck.model.drains import Drains, Mark
from container_healthcheck.model.history import (
    Change,
    History,
    change_from_json,
    change_to_json,
)
from container_healthcheck.model.probe_state import ProbeState
from container_healthcheck.model.verdict import Code, Fault


class MalformedMessageError(ValueError):
    """Something that is not a message of this version."""


@dataclass(frozen=True, slots=True)
class Message:
    """What has changed. A field with its default value says nothing.

    - `containers`: as they are now, by their ids; None for one that has gone
    - `confirmed_at`: when the engine was asked for the full list that it has answered, in seconds
      on CLOCK_MONOTONIC, which all processes of a host share; the engine has no fault then
    - `fault`: the present fault of the engine; in one message with `confirmed_at` it is the later
    - `engine_time`: the engine's time of the latest event that is handled, in nanoseconds
    - `probes`: probe states
    - `drains`: all marks in force
    - `found`: the codes of apps that were there at the start
    - `changes`: changes of a code, the oldest first
    - `history`: all of it, in place of what was recorded before
    - `last_probes`, `failures`, `events`: newer values of the counters
    """

    containers: Mapping[str, Container | None] = field(default_factory=dict)
    confirmed_at: float | None = None
    fault: Fault | None = None
    engine_time: int = 0
    probes: Mapping[str, ProbeState] = field(default_factory=dict)
    drains: Drains | None = None
    found: Mapping[str, int] | None = None
    changes: Sequence[Change] = ()
    history: History | None = None
    last_probes: Mapping[str, LastProbe | None] = field(default_factory=dict)
    failures: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    events: Mapping[str, int] = field(default_factory=dict)

    @property
    def says_something(self) -> bool:
        """False for a message that changes nothing."""
        return self != _NOTHING

    @property
    def is_worth_saving(self) -> bool:
        """False for a message that brings nothing but newer counters."""
        return replace(self, last_probes={}, failures={}, events={}).says_something


_NOTHING = Message()


def to_json(message: Message) -> dict[str, Any]:
    """What `from_json` takes."""
    return {
        name: write(value)
        for name, (write, _) in _FORMATS.items()
        if (value := getattr(message, name)) != getattr(_NOTHING, name)
    }


def from_json(value: Any) -> Message:
    """The message that `to_json` has given. Raises MalformedMessageError for anything else."""
    try:
        return Message(**{name: _FORMATS[name][1](each) for name, each in value.items()})
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        OSError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise MalformedMessageError(f"not a message: {error!r}"[:200]) from error


_Format = tuple[Callable[[Any], Any], Callable[[Any], Any]]


def _as_it_is(value: Any) -> Any:
    return value


def _each(one: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: {str(key): one(each) for key, each in value.items()}


def _optional(one: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else one(value)


def _slots(value: Any) -> list[Any]:
    """The values of a dataclass, in the order of its fields."""
    return [getattr(value, each.name) for each in fields(value)]


def _container(values: Sequence[Any]) -> Container:
    _check_types(values, [str, str, str, str, int, str, str, str, list])
    return Container(*values)


def _probe_state(values: Sequence[Any]) -> ProbeState:
    _check_types(values, [bool, bool, int, int, str])
    return ProbeState(*values)


def _check_types(values: Sequence[Any], types: Sequence[type]) -> None:
    found = [type(each) for each in values]
    if found != types:
        raise ValueError(f"{found} are not {types}")


def _mark(value: Mapping[str, Any]) -> Mark:
    mark = Mark(**value)
    _check_types([mark.reason, mark.problem], [str, str])
    for at in (mark.since, mark.until):
        # Raises unless it is a time that can be shown.
        datetime.fromtimestamp(0.0 if at is None else _time(at)).astimezone()
    return mark


def _last_probe(values: Sequence[Any]) -> LastProbe:
    seen, asked_at, seconds = values
    return LastProbe(None if seen is None else str(seen), _time(asked_at), _time(seconds))


def _time(value: Any) -> float:
    seconds = float(value)
    if not math.isfinite(seconds):
        raise ValueError(f"{value!r} is not a time")
    return seconds


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise ValueError(f"{value!r} is not a whole number")
    return value


_FORMATS: Mapping[str, _Format] = {
    "containers": (_each(_optional(_slots)), _each(_optional(_container))),
    "confirmed_at": (_as_it_is, _time),
    "fault": (_slots, lambda values: Fault(Code(values[0]), str(values[1]))),
    "engine_time": (_as_it_is, _whole),
    "probes": (_each(_slots), _each(_probe_state)),
    "drains": (
        lambda drains: {name: asdict(mark) for name, mark in drains.marks.items()},
        lambda value: Drains(_each(_mark)(value)),
    ),
    "found": (_as_it_is, _each(lambda code: int(Code(code)))),
    "changes": (
        lambda changes: [change_to_json(change) for change in changes],
        lambda value: tuple(change_from_json(each) for each in value),
    ),
    "history": (History.to_json, History.from_json),
    "last_probes": (_as_it_is, _each(_optional(_last_probe))),
    "failures": (_as_it_is, _each(_each(_whole))),
    "events": (_as_it_is, _each(_whole)),
}
