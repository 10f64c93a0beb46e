"""Replicas for the tests of what workers tell each other."""

from __future__ import annotations

from pathlib import Path

from container_healthcheck.model.serving import Serving
from container_healthcheck.observers.archive import Archive
from container_healthcheck.observers.ledger import Ledger
from container_healthcheck.observers.replica import Replica


def replica(file: int, folder: Path, *, valid_for: float = 15, probed: bool = True) -> Replica:
    """A worker's replica on this ledger, which has read what is there."""
    made = Replica(
        Ledger(file),
        Serving(fall=1, rise=1),
        {kind: Archive(folder, kind, "127.0.0.1:4246") for kind in ("serving", "history")},
        valid_for=valid_for,
        is_probed=lambda _: probed,
    )
    made.read()
    return made
