"""The followers' side of the relay: applies what the leader publishes."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace

from container_healthcheck.model import message as messages
from container_healthcheck.model.host_state import HostState, state_of
from container_healthcheck.model.message import MalformedMessageError, Message
from container_healthcheck.model.names import NamePattern

# How much is read at once, and the longest line, in bytes.
_PART = 256 << 10
LONGEST_LINE = 64 << 20
# How often a follower of a silent leader sees whether the leader is still alive, in seconds.
PATIENCE = 1.0

Show = Callable[[HostState, frozenset[str] | None], None]
"""Takes each new state, with the apps that it affects; None stands for all apps."""


def follow(
    connection: socket.socket,
    pattern: NamePattern,
    show: Show,
    is_over: Callable[[], bool],
) -> None:
    """Shows the leader's state, and each next one, until the connection or the term ends.

    `is_over` is asked once in a while, and before each message is applied. Raises
    MalformedMessageError when something that is not the leader writes.
    """
    lines = _lines(connection, is_over)
    state = _first_state(lines, pattern)
    if state is None:
        return
    show(state, None)
    for line in lines:
        position, message = _parsed(line)
        if position is None:
            raise MalformedMessageError("a message without a position")
        state, affected = state.after(message)
        state = replace(state, position=position)
        show(state, affected)


def _first_state(lines: Iterator[bytes], pattern: NamePattern) -> HostState | None:
    """The full state, or None when the stream ends before it is complete."""
    parts: list[Message] = []
    for line in lines:
        position, message = _parsed(line)
        if position is not None:
            return state_of(parts, pattern, position)
        parts.append(message)
    return None


def _parsed(line: bytes) -> tuple[int | None, Message]:
    """The position of a message, if the line says it, and the message."""
    try:
        fields = json.loads(line)
        position = fields.pop("position", None)
    except (AttributeError, RecursionError, TypeError, ValueError) as error:
        raise MalformedMessageError(f"not a message: {line[:80]!r}") from error
    if position is not None and type(position) is not int:
        raise MalformedMessageError(f"not a position: {position!r}")
    return position, messages.from_json(fields)


def _lines(connection: socket.socket, is_over: Callable[[], bool]) -> Iterator[bytes]:
    """The lines that come, until the stream ends or nothing more is to be read."""
    connection.settimeout(PATIENCE)
    unread = b""
    while not is_over():
        try:
            part = connection.recv(_PART)
        except TimeoutError:
            continue
        except OSError:
            return
        if not part:
            return
        *lines, unread = (unread + part).split(b"\n")
        for line in lines:
            if is_over():
                return
            yield line
        if len(unread) > LONGEST_LINE:
            raise MalformedMessageError(f"a line of more than {LONGEST_LINE} bytes")
