"""Apps that have come back are healthy for nobody before they were asked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from container_healthcheck.held_back import HeldBack
from container_healthcheck.model.records import Probed
from container_healthcheck.model.returns import Return, Returns
from container_healthcheck.model.serving import UNASKED
from container_healthcheck.observers.replica import Replica, since_boot
from tests.unit.faults import no_room
from tests.unit.replicas import replica

RETURN = Return("a", "a-1 started", gone_at=0)


@pytest.fixture
def workers(file: int, tmp_path: Path) -> tuple[Replica, Replica]:
    return replica(file, tmp_path), replica(file, tmp_path)


def test_a_return_that_cannot_be_told_is_held_back_here(
    workers: tuple[Replica, Replica], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = workers
    held_back = HeldBack(first, Returns())
    held_back.add([RETURN])
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", no_room)
        with pytest.raises(OSError, match="No space"):
            held_back.tell()

    assert (held_back.apps, held_back.failing) == (frozenset("a"), {"a": UNASKED})

    assert held_back.tell() == {"a"}
    second.read()
    assert (held_back.apps, held_back.failing) == (frozenset(), {"a": UNASKED})
    assert second.serving.failing == {"a": UNASKED}


def test_a_return_that_another_worker_has_told_of_is_not_told_again(
    workers: tuple[Replica, Replica],
) -> None:
    first, second = workers
    held_back = [HeldBack(each, Returns()) for each in workers]
    for each in held_back:
        each.add([RETURN])
    held_back[0].tell()
    first.tell(lambda: [Probed("a", None, first.number, since_boot())])

    held_back[1].tell()
    first.read()

    assert (held_back[0].failing, held_back[1].failing) == ({}, {})
    assert first.number == second.number == 2
