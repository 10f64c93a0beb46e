"""The host state: all that is known of one host, as one value.

The leader and every follower hold one each, and change it by nothing but messages, so that they
agree. A state does not change; a message makes the next one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from container_healthcheck.model.counters import Counters
from container_healthcheck.model.drains import Drains
from container_healthcheck.model.history import History
from container_healthcheck.model.message import Message
from container_healthcheck.model.names import NamePattern
from container_healthcheck.model.probe_state import ProbeStates
from container_healthcheck.model.snapshot import Snapshot

# So many containers go into one message of a full state: a millisecond of work.
_CHUNK = 50


@dataclass(frozen=True, slots=True)
class HostState:
    """What is known of the host.

    `engine_time` is the engine's time of the latest event that is handled, in nanoseconds;
    `position` counts the messages, over all leaders (see `relay/shared.py`).
    """

    pattern: NamePattern
    snapshot: Snapshot = field(default_factory=Snapshot)
    probes: ProbeStates = field(default_factory=ProbeStates)
    drains: Drains = field(default_factory=Drains)
    history: History = field(default_factory=History)
    counters: Counters = field(default_factory=Counters)
    engine_time: int = 0
    position: int = 0

    def after(self, message: Message) -> tuple[HostState, frozenset[str]]:
        """The state after one message, and the apps whose containers or probes it affects."""
        snapshot, affected = self.snapshot.updated(message.containers, self.pattern)
        if message.confirmed_at is not None:
            snapshot = replace(snapshot, confirmed_at=message.confirmed_at, fault=None)
        if message.fault is not None:
            snapshot = replace(snapshot, fault=message.fault)
        probes, history = self.probes, message.history or self.history
        if message.probes:
            probes, affected = probes.with_changes(message.probes), affected | set(message.probes)
        if message.found is not None or message.changes:
            history = history.after(message.found, message.changes)
        state = replace(
            self,
            snapshot=snapshot,
            probes=probes,
            drains=self.drains if message.drains is None else message.drains,
            history=history,
            counters=self.counters.updated(message.last_probes, message.failures, message.events),
            engine_time=message.engine_time or self.engine_time,
        )
        return state, affected

    def messages(self) -> Iterator[Message]:
        """The messages that make this state from an empty one."""
        snapshot = self.snapshot
        containers = iter(snapshot.containers.items())
        while chunk := dict(itertools.islice(containers, _CHUNK)):
            yield Message(containers=chunk)
        yield Message(
            confirmed_at=snapshot.confirmed_at,
            fault=snapshot.fault,
            engine_time=self.engine_time,
            probes=self.probes.states,
            drains=self.drains,
            history=self.history,
            last_probes=self.counters.probes,
            failures=self.counters.failures,
            events=self.counters.events,
        )


def state_of(messages: Iterable[Message], pattern: NamePattern, position: int = 0) -> HostState:
    """The state that these messages make from an empty one."""
    state = HostState(pattern)
    for message in messages:
        state, _ = state.after(message)
    return replace(state, position=position)
