"""A made-up host, and a client of its answers: no server, no Docker, no apps."""

from __future__ import annotations

from typing import Any

from flask.testing import FlaskClient

from container_healthcheck.board import Board
from container_healthcheck.model.counters import LastProbe
from container_healthcheck.model.drains import Drains, Mark
from container_healthcheck.model.history import Change
from container_healthcheck.model.host_state import HostState
from container_healthcheck.model.message import Message
from container_healthcheck.model.snapshot import Snapshot
from container_healthcheck.settings import Settings
from container_healthcheck.web.app import create_app

BASE = "/container-healthcheck"
NOW = 100.0


class Host:
    """A host as the test says, and a client of its answers."""

    def __init__(self) -> None:
        settings = Settings()
        self.latest = 0
        self.board = Board(
            HostState(settings.name_pattern),
            stale_after=15,
            latest=lambda: self.latest,
            clock=lambda: NOW,
        )
        self.client: FlaskClient = create_app(self.board, settings).test_client()

    def apply(self, message: Message) -> None:
        """What the leader observes and publishes."""
        state, affected = self.board.state.after(message)
        self.board.publish(state, affected)

    def shows(self, snapshot: Snapshot) -> None:
        """The engine has listed all containers, or has failed."""
        changes = self.board.state.snapshot.differences(snapshot.containers.values())
        confirmed_at, fault = snapshot.confirmed_at, snapshot.fault
        self.apply(Message(containers=changes, confirmed_at=confirmed_at, fault=fault))

    def changed(self, *changes: Change) -> None:
        """Codes of apps have changed."""
        self.apply(Message(changes=changes))

    def drain(self, **marks: Mark) -> None:
        """These are the marks in force, and no others."""
        self.apply(Message(drains=Drains(marks)))

    def probed(self, **probes: LastProbe) -> None:
        """Probes have ended."""
        self.apply(Message(last_probes=probes))

    def get(self, path: str, **options: Any) -> Any:
        return self.client.get(BASE + path, **options)
