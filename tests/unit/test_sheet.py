"""The sheet and the tally: what one worker sees, shown by all; whoever dies, no count goes back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter

import pytest

from container_healthcheck.model.counts import MOST, touch
from container_healthcheck.model.probes import REASONS, LastProbe, Observed, reason_of
from container_healthcheck.observers import file_lock
from container_healthcheck.observers.file_lock import FileBusyError
from container_healthcheck.observers.sheet import Sheet
from container_healthcheck.observers.tally import Tally

PASS = LastProbe(None, 2.5, 0.125)
FAILURE = LastProbe("502 Bad Gateway from http://…", 1.5, 0.25)


def test_the_sheet_shows_what_was_written_last(file: int) -> None:
    sheet = Sheet(file)
    assert sheet.read() == Observed()
    for number in range(1, 100):
        apps = {f"app{each}": PASS for each in range(number * 7 % 10)}
        observed = Observed(apps, {"a": {"timeout": number}}, {"die": number})
        sheet.write(observed)
        assert Sheet(file).read() == observed

    assert os.fstat(file).st_size < 4000


@pytest.mark.parametrize("text", [b"{", b"\0" * 16, b"\xff" * 16, b"\x10" + b"\0" * 7 + b"\x01"])
def test_a_sheet_that_cannot_be_read_shows_nothing(file: int, text: bytes) -> None:
    os.pwrite(file, text, 0)

    assert Sheet(file).read() == Observed()


_HOLDER = """
import fcntl, sys, time
fcntl.lockf(int(sys.argv[1]), fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(600)
"""


def test_whoever_holds_the_sheet_and_hangs_is_not_waited_for(
    file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_lock, "PATIENCE", 0.05)
    Sheet(file).write(Observed(events={"die": 1}))
    command = [sys.executable, "-c", _HOLDER, str(file)]
    with subprocess.Popen(command, pass_fds=[file], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        assert Sheet(file).read() == Observed()
        with pytest.raises(FileBusyError):
            Sheet(file).write(Observed())
        holder.kill()
    monkeypatch.undo()

    assert Sheet(file).read() == Observed(events={"die": 1})


_WRITER = """
import sys
from container_healthcheck.model.probes import Observed
from container_healthcheck.observers import file_lock
from container_healthcheck.observers.sheet import Sheet
# Longer than a busy machine keeps a holder from going on.
file_lock.PATIENCE = 60
sheet = Sheet(int(sys.argv[1]))
number = sheet.read().events.get("die", 0)
while True:
    number += 1
    sheet.write(Observed({}, {}, {"die": number, "x" * (number % 1000): 1}))
"""


def test_whoever_is_killed_while_writing_leaves_what_was_there(
    file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_lock, "PATIENCE", 60)
    command = [sys.executable, "-c", _WRITER, str(file)]
    last = 0
    for _ in range(10):
        with subprocess.Popen(command, pass_fds=[file]) as writer:
            begun = last
            while last < begun + 50:
                assert writer.poll() is None
                read = Sheet(file).read().events.get("die", 0)
                assert read >= last
                last = read
            writer.send_signal(signal.SIGKILL)
    assert Sheet(file).read().events["die"] >= last


# --- the tally


def test_the_tally_has_news_only_when_there_are() -> None:
    heard: Counter[str] = Counter()
    tally = Tally(lambda: heard)
    tally.begin(Observed(), ())
    assert tally.news() is None

    tally.probed("a", FAILURE)
    heard["die"] += 1
    news = tally.news()

    assert news == Observed({"a": FAILURE}, {"a": {"http_502": 1}}, {"die": 1})
    tally.shown(news)
    assert tally.news() is None
    tally.forget("a")
    assert tally.news() == Observed({}, {"a": {"http_502": 1}}, {"die": 1})


def test_the_next_lead_counts_on() -> None:
    # It has heard of events before, which the lead before has told of.
    heard = Counter({"die": 5, "start": 5})
    tally = Tally(lambda: heard)
    shown = Observed(
        {"a": PASS, "gone": PASS}, {"a": {"timeout": 2}, "gone": {"timeout": 1}}, {"die": 4}
    )
    tally.begin(shown, ["a", "b"])

    heard["die"] += 1
    tally.probed("a", FAILURE)

    assert tally.news() == Observed(
        {"a": FAILURE},
        {"a": {"timeout": 2, "http_502": 1}, "gone": {"timeout": 1}},
        {"die": 5, "start": 0},
    )


def test_counts_do_not_grow_without_end() -> None:
    counts: dict[str, int] = {}
    for number in range(MOST):
        touch(counts, f"app{number}", 1)
    touch(counts, "app0", 2)
    touch(counts, "another", 1)

    assert len(counts) == MOST
    assert "app1" not in counts and counts["app0"] == 2


# --- what was seen, as a word


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        ("no answer within 3 s from http://a/", "timeout"),
        ("connection closed without an answer from http://a/", "closed"),
        ("an answer that is not HTTP from http://a/", "not_http"),
        ("Connection refused from http://a/", "refused"),
        ("nginx's own 404 page (the app has no pid file) from http://a/", "no_pid_file"),
        ("502 Bad Gateway from http://a/", "http_502"),
        ("503 Service Unavailable from http://a/", "http_503"),
        ("504 Gateway Time-out from http://a/", "http_504"),
        ("internal error: ValueError()", "internal"),
        ("No route to host from http://a/", "unreachable"),
        ("", "unreachable"),
    ],
)
def test_what_was_seen_is_one_of_a_few_words(seen: str, reason: str) -> None:
    assert reason_of(seen) == reason
    assert reason in REASONS
