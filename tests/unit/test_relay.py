"""The relay: the full state first, then every message in order, whatever the followers do."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from container_healthcheck.model.host_state import HostState
from container_healthcheck.model.message import MalformedMessageError, Message
from container_healthcheck.model.snapshot import snapshot_of
from container_healthcheck.relay import follower, publisher
from container_healthcheck.relay.follower import follow
from container_healthcheck.relay.leadership import Leadership
from container_healthcheck.relay.publisher import Publisher
from container_healthcheck.relay.shared import SharedMemory
from sandbox.waiting import wait_for, wait_until
from tests.unit.containers import PATTERN, container

NOBODY = 65534
STATE = HostState(
    PATTERN,
    snapshot_of([container(f"app{number}-1") for number in range(500)], PATTERN, confirmed_at=1.5),
)


class Leader:
    """A worker that leads, without anything to observe."""

    def __init__(self, state: HostState = STATE) -> None:
        self.shared = SharedMemory()
        term = Leadership(self.shared).stand(0)
        assert term is not None
        self.term = term
        self.state = replace(state, position=self.shared.position)
        self.publisher = Publisher(self.term, self.shared, self.state)
        self.publisher.start()

    def publish(self, message: Message) -> None:
        state, _ = self.state.after(message)
        self.state = replace(state, position=self.state.position + 1)
        self.publisher.publish(message, self.state)

    def connect(self) -> socket.socket:
        # On a busy machine it has been silent for longer than a leader may be.
        self.shared.beat()
        connection = Leadership(self.shared).connect()
        assert connection is not None
        connection.settimeout(60)
        return connection


class Follower:
    """Another worker, with each state that it has shown.

    `ahead` is how far the shared memory was ahead of each.
    """

    def __init__(self, connection: socket.socket, shared: SharedMemory | None = None) -> None:
        self.ahead: list[int] = []
        self._shared = shared or SharedMemory()
        self.states: list[HostState] = []
        self.is_over = False
        self.error: Exception | None = None
        self._connection = connection
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with self._connection:
            try:
                follow(self._connection, PATTERN, self._show, lambda: self.is_over)
            except MalformedMessageError as error:
                self.error = error

    def _show(self, state: HostState, affected: frozenset[str] | None) -> None:
        assert (affected is None) == (not self.states)
        self.ahead.append(self._shared.position - state.position)
        self.states.append(state)

    def reaches(self, state: HostState) -> None:
        wait_for(lambda: self.states and self.states[-1].position >= state.position, "the state")
        assert self.states[-1] == state

    def ends(self) -> None:
        self._thread.join(60)
        assert not self._thread.is_alive()


@pytest.fixture
def leader() -> Iterator[Leader]:
    leader = Leader()
    yield leader
    leader.publisher.close()


def counted(number: int) -> Message:
    return Message(events={"die": number})


def test_a_follower_gets_the_full_state_and_then_each_message(leader: Leader) -> None:
    one = Follower(leader.connect())
    one.reaches(leader.state)

    for number in range(10):
        leader.publish(counted(number))
    one.reaches(leader.state)
    late = Follower(leader.connect())
    late.reaches(leader.state)

    assert len(one.states) == 11
    assert len(late.states) == 1


def test_nothing_is_missed_while_messages_are_published(leader: Leader) -> None:
    followers = []
    for number in range(300):
        leader.publish(Message(containers={"x": container(f"x-{number}", id="x")}))
        if number % 30 == 0:
            followers.append(Follower(leader.connect()))

    for each in followers:
        each.reaches(leader.state)
        positions = [state.position for state in each.states]
        assert positions == list(range(positions[0], leader.state.position + 1))


def test_a_position_is_announced_before_anybody_can_have_the_message(leader: Leader) -> None:
    one = Follower(leader.connect(), leader.shared)
    for number in range(50):
        leader.publish(counted(number))
    one.reaches(leader.state)

    assert all(ahead >= 0 for ahead in one.ahead)
    assert leader.shared.position == leader.state.position


def test_a_follower_that_does_not_read_delays_nobody_and_is_disconnected(
    leader: Leader, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(publisher, "MOST_UNREAD", 1 << 20)
    good, deaf = Follower(leader.connect()), leader.connect()
    good.reaches(leader.state)
    began = time.monotonic()
    for _ in range(100):
        leader.publish(Message(containers={"x": container("x-1", id="x", command="x" * 100_000)}))
        # One that reads is never so far behind.
        good.reaches(leader.state)
    assert time.monotonic() - began < 45

    with deaf:
        while deaf.recv(1 << 20):
            pass
    assert caplog.messages == ["a worker reads too slowly from the leader and is disconnected"]
    again = Follower(leader.connect())
    again.reaches(leader.state)


def test_a_follower_that_reads_slowly_gets_every_byte(leader: Leader) -> None:
    near, far = socket.socketpair()
    one, slow, other = Follower(leader.connect()), leader.connect(), Follower(near)
    slow.settimeout(60)
    for number in range(50):
        command = f"{number}" * 20_000
        leader.publish(Message(containers={"x": container("x-1", id="x", command=command)}))

    def pass_on_in_small_parts() -> None:
        while part := slow.recv(3000):
            far.sendall(part)

    passing = threading.Thread(target=pass_on_in_small_parts, daemon=True)
    passing.start()
    other.reaches(leader.state)
    one.reaches(leader.state)
    leader.publisher.close()
    passing.join(60)
    slow.close()
    far.close()
    other.ends()

    shown = other.states[1:]
    assert shown == one.states[len(one.states) - len(shown) :]
    assert [each.position for each in other.states] == list(
        range(other.states[0].position, leader.state.position + 1)
    )


def test_a_follower_that_goes_away_is_forgotten(leader: Leader) -> None:
    leader.connect().close()
    one = Follower(leader.connect())
    one.reaches(leader.state)

    def published() -> int:
        leader.publish(counted(leader.state.position))
        return len(leader.publisher._followers)

    wait_until(published, lambda count: count == 1, "one follower")
    one.reaches(leader.state)


def test_the_end_of_the_leader_ends_its_followers(leader: Leader) -> None:
    followers = [Follower(leader.connect()) for _ in range(5)]
    for each in followers:
        each.reaches(leader.state)

    leader.publisher.close()

    for each in followers:
        each.ends()
        assert each.error is None


def test_nothing_is_applied_once_the_term_is_over(leader: Leader) -> None:
    one = Follower(leader.connect())
    one.reaches(leader.state)
    one.is_over = True

    # As a leader that has been frozen does when it continues.
    leader.publish(counted(1))
    one.ends()

    assert len(one.states) == 1


# --- what else may come over the connection


def followed(text: bytes) -> Follower:
    """A follower that has read all of this."""
    near, far = socket.socketpair()
    one = Follower(near)
    with far:
        far.sendall(text)
    one.ends()
    return one


@pytest.fixture(scope="module")
def stream() -> bytes:
    """The bytes of a short stream: an empty state and three messages."""
    leader = Leader(HostState(PATTERN))
    text = b""
    with leader.connect() as connection:
        while not text.endswith(b"}\n") or text.count(b"\n") < 2:
            text += connection.recv(1 << 20)
        for number in range(3):
            leader.publish(Message(containers={"x": container(f"x-{number}", id="x")}))
        while text.count(b"\n") < 5:
            text += connection.recv(1 << 20)
    leader.publisher.close()
    return text


def test_a_stream_that_is_cut_anywhere_shows_no_part_of_a_message(stream: bytes) -> None:
    whole = followed(stream).states
    assert len(whole) == 4

    for length in range(len(stream)):
        one = followed(stream[:length])
        assert one.error is None
        assert one.states == whole[: max(stream[:length].count(b"\n") - 1, 0)]


@pytest.mark.parametrize(
    "garbage",
    [
        b"nothing\n",
        b"\n",
        b"[]\n",
        b"7\n",
        b"null\n",
        b"\xff\xfe\n",
        b'{"position":"x"}\n',
        b'{"position":1.5}\n',
        b'{"position":true}\n',
        b'{"fault":[]}\n',
        b'{"position":1,"nothing":2}\n',
        b"[" * 100_000 + b"\n",
        b'{"fault":' * 100_000 + b"\n",
    ],
)
def test_garbage_is_refused_wherever_it_comes(stream: bytes, garbage: bytes) -> None:
    lines = stream.splitlines(keepends=True)
    for place in range(len(lines) + 1):
        one = followed(b"".join([*lines[:place], garbage, *lines[place:]]))
        assert one.error is not None
        assert "\n" not in str(one.error) and len(str(one.error)) < 300


def test_a_message_without_a_position_is_refused(stream: bytes) -> None:
    one = followed(stream + b'{"events":{"die":1}}\n')

    assert "without a position" in str(one.error)


def test_a_line_without_an_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "LONGEST_LINE", 10_000)

    one = followed(b"x" * 20_000)

    assert "a line of more than 10000 bytes" in str(one.error)


CONNECT = """
import os, socket, sys
os.seteuid(int(sys.argv[2]))
connection = socket.socket(socket.AF_UNIX)
connection.settimeout(60)
connection.connect("\\0" + sys.argv[1])
print(os.getpid(), len(connection.recv(1000)))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_gets_nothing(leader: Leader, caplog: pytest.LogCaptureFixture) -> None:
    name = Leadership(leader.shared).name(1)
    done = subprocess.run(
        [sys.executable, "-c", CONNECT, name, str(NOBODY)],
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=True,
    )
    process, received = done.stdout.split()

    assert received == "0"
    assert caplog.messages == [
        f"a connection to the leader was refused: process {process} of user {NOBODY} is at the"
        " other end"
    ]
    Follower(leader.connect()).reaches(leader.state)
