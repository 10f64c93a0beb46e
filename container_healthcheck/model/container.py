"""One container, as the engine's list describes it.

The source of every field is an entry of `GET /containers/json` of the Docker Engine API, 1.39 and
later.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Before API 1.52 the list shows a HEALTHCHECK's state only in the status text.
_HEALTH_IN_STATUS = re.compile(r"\((?:health: )?(healthy|unhealthy|starting)\)")
_NOT_READY = frozenset({"unhealthy", "starting"})


class MalformedContainerError(ValueError):
    """An entry of the engine's list that is not a container."""


@dataclass(frozen=True, slots=True)
class Container:
    """A container at one moment.

    `created` is in seconds since the epoch. `health` is the state of the image's HEALTHCHECK
    (`healthy`, `unhealthy`, `starting`) or empty where there is none. `ports` is Docker's own list.
    """

    id: str
    name: str
    image: str
    command: str
    created: int
    state: str
    status: str
    health: str
    ports: Sequence[Mapping[str, Any]]

    @property
    def is_live(self) -> bool:
        """True when it runs and no HEALTHCHECK objects."""
        return self.state == "running" and self.health not in _NOT_READY

    @property
    def age_key(self) -> tuple[int, str, str]:
        """Sorts containers by age; of two created in one second the greater name is the newer."""
        # While a container is renamed, two may have one name for a moment.
        return (self.created, self.name, self.id)


def from_listing(entry: Mapping[str, Any]) -> Container | None:
    """The container of one list entry, or None when it has no name of its own.

    A container that is being created or removed may have no name for a moment.

    Raises MalformedContainerError when the entry is not what the API promises.
    """
    try:
        name = _own_name(entry.get("Names") or ())
        if name is None:
            return None
        status = str(entry.get("Status") or "")
        return Container(
            id=str(entry["Id"]),
            name=name,
            image=str(entry.get("Image") or ""),
            command=str(entry.get("Command") or ""),
            created=int(entry.get("Created") or 0),
            state=str(entry.get("State") or "").lower(),
            status=status,
            health=_health(entry, status),
            ports=list(entry.get("Ports") or ()),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise MalformedContainerError(f"not a container: {error!r}") from error


def newest_first(containers: Iterable[Container]) -> tuple[Container, ...]:
    """The same containers, the youngest at the head."""
    return tuple(sorted(containers, key=lambda container: container.age_key, reverse=True))


def _own_name(names: Sequence[str]) -> str | None:
    # A name with a second slash is a link alias: "/consumer/alias".
    return next((name[1:] for name in names if name.rfind("/") == 0 and len(name) > 1), None)


def _health(entry: Mapping[str, Any], status: str) -> str:
    health = entry.get("Health")
    if health:
        reported = str(health.get("Status") or "")
        return "" if reported == "none" else reported
    found = _HEALTH_IN_STATUS.search(status)
    return found.group(1) if found else ""
