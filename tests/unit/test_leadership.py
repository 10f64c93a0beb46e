"""Leadership: one leader at a time, and soon another one when it ends or freezes."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import NoReturn

import pytest

from container_healthcheck.relay import address, leadership
from container_healthcheck.relay.address import StrangerError
from container_healthcheck.relay.leadership import Leadership, Term
from container_healthcheck.relay.shared import SharedMemory, first_position
from sandbox.waiting import wait_until

NOBODY = 65534


@pytest.fixture
def shared() -> SharedMemory:
    return SharedMemory()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leadership, "PRECEDENCE", 0.05)


def stand(shared: SharedMemory, stack: ExitStack, position: int = 0) -> Term:
    term = wait_until(lambda: Leadership(shared).stand(position), bool, "a term")
    assert term is not None
    stack.enter_context(term.listener)
    return term


# --- the numbers that all workers read


def test_positions_never_go_back(shared: SharedMemory) -> None:
    assert (shared.term, shared.position) == (0, 0)
    seen = []
    for term in range(1, 200):
        shared.begin(term)
        seen.append(shared.position)
        shared.announce(term, first_position(term) + 7)
        seen.append(shared.position)

    assert seen == sorted(seen)
    assert len(set(seen)) == len(seen)


def test_an_earlier_leader_changes_no_position(shared: SharedMemory) -> None:
    shared.begin(1)
    shared.begin(2)

    shared.announce(1, first_position(1) + 99)

    assert shared.position == first_position(2)


def test_only_the_present_leader_can_have_resigned(shared: SharedMemory) -> None:
    seen = []
    for step in (shared.begin, shared.resign):
        step(1)
        seen.append(shared.is_resigned)
    shared.begin(2)
    seen.append(shared.is_resigned)
    shared.resign(1)
    seen.append(shared.is_resigned)

    assert seen == [False, True, False, False]


def test_a_heartbeat_ends_the_silence(shared: SharedMemory) -> None:
    shared.begin(1)
    wait_until(lambda: shared.silence, lambda silence: silence > 0.05, "silence")

    shared.beat()

    assert shared.silence < 30


def test_reloads_are_counted(shared: SharedMemory) -> None:
    shared.count_reload()
    shared.count_reload()

    assert shared.reloads == 2


# --- terms


def test_without_a_leader_there_is_no_connection(shared: SharedMemory) -> None:
    assert Leadership(shared).connect() is None


def test_the_first_worker_leads_and_the_others_connect(
    shared: SharedMemory, stack: ExitStack
) -> None:
    term = stand(shared, stack)
    assert (term.number, shared.term, shared.position) == (1, 1, first_position(1))
    assert not term.is_over

    connection = Leadership(shared).connect()

    assert connection is not None
    connection.close()


def test_a_term_begins_only_once(
    shared: SharedMemory, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nobody takes another's address for that of a frozen worker.
    monkeypatch.setattr(leadership, "PRECEDENCE", 1000)
    start = threading.Barrier(16)
    terms: list[Term] = []

    def work() -> None:
        candidate = Leadership(shared)
        start.wait(60)
        while not shared.term:
            if (term := candidate.stand(0)) is not None:
                terms.append(term)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert [term.number for term in terms] == [1]
    terms[0].listener.close()


def test_a_candidate_that_was_overtaken_gives_up(
    shared: SharedMemory, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = address.listen

    def overtaken(name: str) -> socket.socket:
        shared.begin(3)
        return real(name)

    monkeypatch.setattr(address, "listen", overtaken)

    assert Leadership(shared).stand(0) is None
    assert shared.term == 3
    # Its address is free again.
    real(Leadership(shared).name(1)).close()


def test_a_worker_that_knows_less_leaves_the_others_the_first_chance(
    shared: SharedMemory, stack: ExitStack
) -> None:
    stand(shared, stack).listener.close()
    shared.announce(1, first_position(1) + 5)
    late = Leadership(shared)
    began = time.monotonic()

    assert late.stand(first_position(1) + 4) is None
    term = wait_until(lambda: late.stand(first_position(1) + 4), bool, "its turn")

    assert time.monotonic() - began >= leadership.PRECEDENCE
    assert term is not None and term.number == 2
    term.listener.close()


def test_a_worker_that_knows_all_leads_at_once(
    shared: SharedMemory, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand(shared, stack).listener.close()
    monkeypatch.setattr(leadership, "PRECEDENCE", 1000)

    term = Leadership(shared).stand(shared.position)

    assert term is not None
    term.listener.close()


def test_the_address_of_a_leader_that_was_killed_is_free(shared: SharedMemory) -> None:
    name = Leadership(shared).name(1)
    with listening(name) as process:
        with pytest.raises(OSError) as raised:
            address.listen(name)
        assert raised.value.errno == errno.EADDRINUSE
        process.kill()
        process.wait(60)

    address.listen(name).close()
    with pytest.raises(ConnectionRefusedError):
        address.connect(name, 60)


def test_the_term_of_a_frozen_leader_ends_when_the_next_begins(
    shared: SharedMemory, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen = stand(shared, stack)
    other = Leadership(shared)
    monkeypatch.setattr(leadership, "LEASE", 0.05)
    wait_until(lambda: shared.silence, lambda silence: silence > 0.05, "the end of the lease")
    assert other.connect() is None

    term = other.stand(shared.position)

    assert term is not None and term.number == 2
    stack.enter_context(term.listener)
    assert (frozen.is_over, term.is_over) == (True, False)
    # Nothing that it does when it continues changes that.
    shared.beat()
    shared.announce(frozen.number, first_position(1) + 1)
    assert shared.term == 2
    assert shared.position == first_position(2)


def test_an_address_that_is_taken_by_a_stranger_is_skipped(
    shared: SharedMemory, stack: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    candidate = Leadership(shared)
    stack.enter_context(address.listen(candidate.name(1)))

    term = wait_until(lambda: candidate.stand(0), bool, "the next term")

    assert term is not None and term.number == 2
    stack.enter_context(term.listener)
    assert caplog.messages == ["the address of term 1 is taken; going on with the next"]


def test_what_the_machine_refuses_is_logged_once(
    shared: SharedMemory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> NoReturn:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(socket, "socket", refuse)
    shared.begin(1)
    worker = Leadership(shared)

    for _ in range(20):
        assert worker.connect() is None
        assert worker.stand(shared.position) is None

    assert caplog.messages == [
        "the leader cannot be reached: [Errno 24] Too many open files; trying again",
        "no worker can lead: [Errno 24] Too many open files; trying again",
    ]


# --- other users


LISTEN = """
import os, sys, time
from container_healthcheck.relay import address
os.seteuid(int(sys.argv[2]))
listener = address.listen(sys.argv[1])
print(flush=True)
time.sleep(1000)
"""


class listening:  # noqa: N801
    """A process of a user that listens on an address."""

    def __init__(self, name: str, user: int | None = None) -> None:
        self._command = [sys.executable, "-c", LISTEN, name, str(user or os.geteuid())]

    def __enter__(self) -> subprocess.Popen[str]:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline()
        return self._process

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(60)
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_leader_of_another_user_is_not_followed(
    shared: SharedMemory, caplog: pytest.LogCaptureFixture
) -> None:
    worker = Leadership(shared)
    with listening(worker.name(1), NOBODY) as stranger:
        shared.begin(1)
        with pytest.raises(StrangerError):
            address.connect(worker.name(1), 60)

        assert worker.connect() is None

        assert caplog.messages == [
            f"the leader cannot be reached: process {stranger.pid} of user {NOBODY} is at the other"
            " end; trying again"
        ]
        term = worker.stand(shared.position)
        assert term is not None and term.number == 2
        term.listener.close()
