"""A made-up host, and a client of its answers: no server, no Docker, no apps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask.testing import FlaskClient

from container_healthcheck.board import Board
from container_healthcheck.model.drains import Drains
from container_healthcheck.model.history import History
from container_healthcheck.model.probes import Observed
from container_healthcheck.model.snapshot import Snapshot
from container_healthcheck.settings import Settings
from container_healthcheck.web.app import create_app

BASE = "/container-healthcheck"
NOW = 100.0


class Host:
    """A host as the test says, and a client of its answers."""

    def __init__(self) -> None:
        self.history = History()
        self.observed = Observed()
        self.caught_up = 0
        self.drains = Drains()
        self.board = Board(
            lambda: self.drains,
            stale_after=15,
            history=self.history,
            observed=lambda: self.observed,
            catch_up=self.catch_up,
            clock=lambda: NOW,
        )
        self.client: FlaskClient = create_app(self.board, Settings()).test_client()

    def catch_up(self) -> None:
        self.caught_up += 1

    def shows(self, snapshot: Snapshot, failing: Mapping[str, str] | None = None) -> None:
        self.board.publish(snapshot, failing or {}, snapshot.apps)

    def get(self, path: str, **options: Any) -> Any:
        return self.client.get(BASE + path, **options)
