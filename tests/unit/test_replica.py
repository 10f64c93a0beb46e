"""The replica and the archive: what is known outlives workers and the service, or harms nothing."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import container_healthcheck.observers.replica as replica_module
from container_healthcheck.model.records import Changed, Found, Probed, Record, Returned
from container_healthcheck.model.serving import UNASKED
from container_healthcheck.observers import archive as archive_module
from container_healthcheck.observers.ledger import Ledger
from container_healthcheck.observers.replica import Replica, since_boot
from tests.unit.faults import no_room
from tests.unit.replicas import replica

BAD = "502 Bad Gateway"

Anew = Callable[..., Replica]


@pytest.fixture
def anew() -> Iterator[Callable[..., Replica]]:
    """The replica of a service that has just been started."""
    with ExitStack() as stack:

        def start(folder: Path, **options: Any) -> Replica:
            opened = stack.enter_context(tempfile.TemporaryFile(buffering=0))
            return replica(opened.fileno(), folder, **options)

        yield start


def tell(to: Replica, *records: Record) -> frozenset[str]:
    return to.tell(lambda: records)


def failure(at: float | None = None) -> Probed:
    return Probed("a", BAD, 0, since_boot() if at is None else at)


def test_all_workers_know_the_same(file: int, tmp_path: Path) -> None:
    first, second = replica(file, tmp_path), replica(file, tmp_path)

    assert tell(first, failure(), Changed(1.5, "a", 0, 14, BAD)) == {"a"}
    assert second.read() == {"a"}
    assert second.read() == frozenset()
    late = replica(file, tmp_path)

    for each in (first, second, late):
        assert each.serving.failing == {"a": BAD}
        assert each.history.since("a", 14) == 1.5
        assert each.number == first.number


def test_what_is_told_is_made_with_all_that_others_have_told(file: int, tmp_path: Path) -> None:
    first, second = replica(file, tmp_path), replica(file, tmp_path)
    tell(first, Returned("a", "x@1", 0.0))
    seen: list[str] = []

    second.tell(lambda: seen.append(second.serving.app("a").cause) or ())  # type: ignore[func-returns-value]

    assert seen == ["x@1"]


def test_it_outlives_the_service(file: int, tmp_path: Path, anew: Anew) -> None:
    first = replica(file, tmp_path)
    tell(first, failure(), Found({"a": 14}), Changed(5.5, "a", 0, 14, BAD))
    first.keep()

    again = anew(tmp_path)

    assert again.serving.failing == {"a": BAD}
    assert again.history.since("a", 14) == 5.5
    assert again.number == first.number
    assert not again.history.has_begun


def test_what_is_older_than_it_counts_is_forgotten(
    file: int, tmp_path: Path, anew: Anew, caplog: pytest.LogCaptureFixture
) -> None:
    first = replica(file, tmp_path)
    tell(first, failure(since_boot() - 20))
    tell(first, Returned("b", "", since_boot()))
    first.keep()

    assert anew(tmp_path).serving.failing == {"b": UNASKED}
    assert caplog.messages == [
        f"{tmp_path}/serving-127.0.0.1:4246.json tells nothing of the last 15 s about a:"
        " apps are presumed good until they are asked"
    ]
    caplog.clear()

    assert anew(tmp_path, probed=False).serving.failing == {}
    assert caplog.messages == []
    assert anew(tmp_path, valid_for=30).serving.failing == {"a": BAD, "b": UNASKED}


def test_an_app_that_is_probed_no_more_is_forgotten(file: int, tmp_path: Path, anew: Anew) -> None:
    first = replica(file, tmp_path)
    tell(first, failure())
    first.keep()

    assert anew(tmp_path, probed=False).serving.failing == {}


def spoil(path: Path, kind: str) -> None:
    text = path.read_text()
    fields = json.loads(text)
    if kind == "cut off":
        path.write_text(text[:-10])
    elif kind == "empty":
        path.write_text("")
    elif kind == "no JSON":
        path.write_bytes(b"\xff\xfe nothing")
    elif kind == "another version":
        path.write_text(json.dumps({**fields, "version": 99}))
    elif kind == "another boot":
        path.write_text(json.dumps({**fields, "boot": "x", "booted_at": 5.0}))
    elif kind == "of another shape":
        path.write_text(json.dumps({**fields, "known": {"number": "x", "apps": [1]}}))
    elif kind == "a list":
        path.write_text("[]")
    elif kind == "nested too deep":
        path.write_text("[" * 100_000)
    else:
        path.unlink()
        path.mkdir()


@pytest.mark.parametrize(
    "kind",
    [
        "cut off",
        "empty",
        "no JSON",
        "another version",
        "another boot",
        "of another shape",
        "a list",
        "nested too deep",
        "a folder",
    ],
)
def test_what_cannot_be_used_counts_for_nothing(
    file: int, tmp_path: Path, anew: Anew, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = replica(file, tmp_path)
    tell(first, failure())
    first.keep()
    spoil(tmp_path / "serving-127.0.0.1:4246.json", kind)

    again = anew(tmp_path)

    assert again.serving.failing == {}
    assert [each.levelno for each in caplog.records] == [logging.WARNING]
    assert caplog.messages[0].endswith("apps are presumed good until they are asked")
    # It goes on: what is seen now is kept again, unless something is in the way.
    tell(again, failure())
    again.keep()
    assert anew(tmp_path).serving.failing == ({} if kind == "a folder" else {"a": BAD})


def test_a_boot_is_told_by_the_clock_where_the_kernel_is_hidden(
    file: int, tmp_path: Path, anew: Anew, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_module, "_BOOT_ID", tmp_path / "nothing")
    first = replica(file, tmp_path)
    tell(first, failure())
    first.keep()
    path = tmp_path / "serving-127.0.0.1:4246.json"
    assert anew(tmp_path).serving.failing == {"a": BAD}

    fields = json.loads(path.read_text())
    path.write_text(json.dumps({**fields, "booted_at": fields["booted_at"] - 3600}))

    assert anew(tmp_path).serving.failing == {}


def test_with_no_place_to_write_the_others_hear_of_it(
    file: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = tmp_path / "missing"
    first, second = replica(file, nowhere), replica(file, nowhere)
    for _ in range(3):
        tell(first, failure())
        first.keep()

    second.read()
    assert second.serving.failing == {"a": BAD}
    assert [each.split(": ")[2].split(";")[0] for each in caplog.messages] == [
        "what the probes saw does not outlive this service",
        "since when apps are what they are does not outlive this service",
    ]
    assert "cannot be written: No such file or directory" in caplog.messages[0]


def test_a_failed_write_leaves_what_was_kept(
    file: int, tmp_path: Path, anew: Anew, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = replica(file, tmp_path)
    tell(first, failure())
    first.keep()

    monkeypatch.setattr(Path, "write_text", no_room)
    tell(first, failure())
    first.keep()

    assert anew(tmp_path).serving.failing == {"a": BAD}
    assert {path.suffix for path in tmp_path.iterdir()} == {".json"}


def test_the_ledger_stays_short(file: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica_module, "LARGEST", 10_000)
    monkeypatch.setattr(replica_module, "REMEMBERED", 50)
    lead, other = replica(file, tmp_path), replica(file, tmp_path)
    sizes = []
    for number in range(2000):
        tell(lead, Returned(f"job{number}", "", since_boot()))
        tell(lead, Probed(f"job{number}", None, lead.number, since_boot()))
        lead.keep()
        sizes.append(Ledger(file).size)
        if number % 7 == 0:
            other.read()
    tell(lead, failure())
    other.read()

    assert max(sizes) < 40_000
    assert other.number == lead.number
    assert other.serving.failing == lead.serving.failing == {"a": BAD}
    assert len(lead.serving.apps) < 200
