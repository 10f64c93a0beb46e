"""The ledger: one order for all, whoever dies while writing, and nothing that grows."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from container_healthcheck.model.records import Found, Returned
from container_healthcheck.observers import file_lock
from container_healthcheck.observers.file_lock import FileBusyError
from container_healthcheck.observers.ledger import Ledger
from tests.unit.faults import no_room


def record(number: int) -> Returned:
    return Returned(f"app{number}", "", float(number))


def test_everyone_reads_everything_in_one_order(file: int) -> None:
    first, second = Ledger(file), Ledger(file)
    assert first.is_empty
    first.append([record(1)])
    second.append([record(2)])
    first.append([record(3)])

    assert first.has_news() and second.has_news()
    assert first.read() == second.read() == [record(1), record(2), record(3)]
    assert first.read() == []
    assert not first.has_news()


def test_one_who_comes_later_reads_all(file: int) -> None:
    Ledger(file).append([record(1)])

    assert Ledger(file).read() == [record(1)]


def test_a_ledger_written_anew_is_read_from_its_beginning(file: int) -> None:
    writer, reader = Ledger(file), Ledger(file)
    writer.append([record(number) for number in range(1000)])
    reader.read()
    size = writer.size

    writer.write_anew(Found({}))
    writer.append([record(7)])

    assert writer.size < size
    assert reader.has_news()
    assert reader.read() == [Found({}), record(7)]
    # Its own rewriting is read by the writer, too.
    assert writer.read() == [Found({}), record(7)]


def test_what_was_not_finished_is_not_read(file: int) -> None:
    writer, reader = Ledger(file), Ledger(file)
    writer.append([record(1)])
    # A writer that died between its records and the end that it would have noted.
    os.pwrite(file, b'["returned","half', os.fstat(file).st_size)
    assert reader.read() == [record(1)]

    writer.append([record(2)])

    assert reader.read() == [record(2)]


@pytest.mark.parametrize("writes", range(2))
def test_a_death_while_it_is_written_anew_changes_nothing(
    file: int, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    writer = Ledger(file)
    for _ in range(3):
        # The second time, there is room before what is there.
        writer.append([record(number) for number in range(50)])
        with monkeypatch.context() as patched:
            _dies_after(writes, patched)
            with pytest.raises(InterruptedError):
                writer.write_anew(record(1))
        assert Ledger(file).read()[-50:] == [record(number) for number in range(50)]

        writer.write_anew(record(1))
        assert Ledger(file).read() == [record(1)]


def _dies_after(writes: int, patched: pytest.MonkeyPatch) -> None:
    done = 0

    def pwrite(file: int, text: bytes, place: int) -> int:
        nonlocal done
        if done == writes:
            raise InterruptedError
        done += 1
        return real(file, text, place)

    real = os.pwrite
    patched.setattr(os, "pwrite", pwrite)


def test_it_does_not_grow_with_how_often_it_is_written_anew(file: int) -> None:
    writer = Ledger(file)
    for _ in range(50):
        writer.append([record(number) for number in range(50)])
        writer.write_anew(record(1))

    assert os.fstat(file).st_size < 15_000


def test_room_that_is_reserved_is_an_empty_ledger(file: int) -> None:
    os.posix_fallocate(file, 0, 4096)
    ledger = Ledger(file)
    assert ledger.is_empty
    assert not ledger.has_news()

    ledger.append([record(1)])
    assert ledger.read() == [record(1)]


def test_no_room_adds_nothing(file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Ledger(file)
    writer.append([record(1)])

    monkeypatch.setattr(os, "pwrite", no_room)
    with pytest.raises(OSError, match="No space"):
        writer.append([record(2)])

    assert writer.read() == [record(1)]


_HOLDER = """
import fcntl, sys, time
fcntl.lockf(int(sys.argv[1]), fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(600)
"""


def test_a_holder_that_hangs_is_not_waited_for_and_one_that_dies_lets_go(
    file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_lock, "PATIENCE", 0.1)
    command = [sys.executable, "-c", _HOLDER, str(file)]
    with subprocess.Popen(command, pass_fds=[file], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with pytest.raises(FileBusyError), Ledger(file).locked():
            pass
        holder.send_signal(signal.SIGKILL)

    with Ledger(file).locked():
        Ledger(file).append([record(1)])


_WRITER = """
import sys
from container_healthcheck.model.records import Returned
from container_healthcheck.observers import file_lock
from container_healthcheck.observers.ledger import Ledger
# Longer than a busy machine keeps a holder from going on.
file_lock.PATIENCE = 60
ledger = Ledger(int(sys.argv[1]))
for number in range(500):
    with ledger.locked():
        ledger.append([Returned(sys.argv[2], str(number), 0.0)])
"""


def test_many_writers_lose_nothing(file: int) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", _WRITER, str(file), name], pass_fds=[file])
        for name in ("a", "b", "c")
    ]
    assert [writer.wait(120) for writer in writers] == [0, 0, 0]

    found = [each for each in Ledger(file).read() if isinstance(each, Returned)]

    for name in ("a", "b", "c"):
        own = [each.cause for each in found if each.app_code == name]
        assert own == [str(number) for number in range(500)]
