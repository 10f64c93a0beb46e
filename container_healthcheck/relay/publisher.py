"""The leader's side of the relay: every follower gets the full state, then each message.

One line is one JSON object. A message is handed to the kernel for every follower before the leader
answers from it: a leader that is killed right after an answer has published what it answered.
"""

from __future__ import annotations

import _socket
import json
import logging
import select
import socket
import threading
import time
from collections.abc import Iterable, Iterator

from container_healthcheck.model import message as messages
from container_healthcheck.model.host_state import HostState
from container_healthcheck.model.message import Message
from container_healthcheck.relay import address
from container_healthcheck.relay.address import StrangerError
from container_healthcheck.relay.leadership import Term
from container_healthcheck.relay.shared import SharedMemory

log = logging.getLogger(__name__)

# A follower that leaves so many bytes unread is disconnected; it connects again.
MOST_UNREAD = 8 << 20
# How often a thread that waits for a connection sees whether the term is over, in seconds.
_PAUSE = 1.0


class Publisher:
    """Publishes in one term, beginning with `state`."""

    def __init__(self, term: Term, shared: SharedMemory, state: HostState) -> None:
        self._term = term
        self._shared = shared
        self._state = state
        self._followers: list[_Follower] = []
        self._is_closed = False
        # A new follower gets either a state with a message in it, or the message behind the state.
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._accept, name="publisher", daemon=True)

    def start(self) -> None:
        """Begins to accept followers, in the background."""
        self._term.listener.settimeout(_PAUSE)
        self._thread.start()

    def publish(self, message: Message, state: HostState) -> None:
        """Sends a message, which makes this state, to all followers. Does not wait for any.

        Its position is announced first: from then on no worker answers from an earlier one.
        """
        with self._lock:
            self._shared.announce(self._term.number, state.position)
            self._state = state
            line = _line({**messages.to_json(message), "position": state.position})
            for follower in self._followers:
                follower.send(line)
            self._followers = [each for each in self._followers if not each.is_closed]

    def close(self) -> None:
        """Ends the term's connections: the followers look for another leader."""
        self._is_closed = True
        self._term.listener.close()
        with self._lock:
            for follower in self._followers:
                follower.close()

    def _accept(self) -> None:
        while not self._is_closed:
            try:
                connection, _ = self._term.listener.accept()
            except TimeoutError:
                continue
            except OSError as error:
                if not self._is_closed:
                    # No file descriptors are left, for example.
                    log.warning("a worker cannot connect to the leader: %s; trying again", error)
                    time.sleep(_PAUSE)
                continue
            self._welcome(connection)

    def _welcome(self, connection: socket.socket) -> None:
        try:
            address.verify(connection)
        except (StrangerError, OSError) as error:
            log.warning("a connection to the leader was refused: %s", error)
            connection.close()
            return
        with self._lock:
            if self._is_closed:
                connection.close()
            else:
                self._followers.append(_Follower(connection, _full_state(self._state)))


class _Follower:
    """One connection. `greeting` is sent before anything else."""

    def __init__(self, connection: socket.socket, greeting: Iterable[bytes]) -> None:
        self.is_closed = False
        # Not the socket of Python or gevent, which may wait in spite of MSG_DONTWAIT.
        self._socket = _socket.socket(fileno=connection.detach())
        self._greeting = greeting
        self._is_greeted = False
        self._unsent = bytearray()
        self._wake = threading.Event()
        self._lock = threading.Lock()
        threading.Thread(target=self._run, name="follower", daemon=True).start()

    def send(self, line: bytes) -> None:
        """Hands a line to the kernel, or keeps it until the follower reads again."""
        with self._lock:
            sent = self._send_now(line) if self._is_greeted and not self._unsent else 0
            if sent < len(line) and not self.is_closed:
                self._unsent += line[sent:]
                self._wake.set()
                if len(self._unsent) > MOST_UNREAD:
                    log.warning("a worker reads too slowly from the leader and is disconnected")
                    self._close()

    def close(self) -> None:
        """Ends the connection."""
        with self._lock:
            self._close()

    def _run(self) -> None:
        for line in self._greeting:
            self._flush(bytearray(line))
            # Checks are answered in between.
            time.sleep(0)
        while True:
            with self._lock:
                if self.is_closed:
                    return
                self._is_greeted = not self._unsent
                self._wake.clear()
            if self._is_greeted:
                self._wake.wait()
            self._flush(self._unsent)

    def _flush(self, data: bytearray) -> None:
        """Sends all of it, as fast as the follower reads it; what was sent is taken away."""
        while not self.is_closed:
            with self._lock:
                del data[: self._send_now(data)]
                if not data:
                    return
            _wait_until_writable(self._socket)

    def _send_now(self, data: bytes | bytearray) -> int:
        try:
            return self._socket.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return 0
        except OSError:
            self._close()
            return len(data)

    def _close(self) -> None:
        self.is_closed = True
        self._unsent.clear()
        self._socket.close()
        self._wake.set()


def _wait_until_writable(connection: _socket.socket) -> None:
    try:
        select.select([], [connection.fileno()], [], _PAUSE)
    except (OSError, ValueError):
        pass  # it has been closed meanwhile


def _full_state(state: HostState) -> Iterator[bytes]:
    for message in state.messages():
        yield _line(messages.to_json(message))
    yield _line({"position": state.position})


def _line(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"
