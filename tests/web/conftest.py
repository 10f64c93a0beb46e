"""The hosts that these tests ask."""

from __future__ import annotations

import pytest

from container_healthcheck.model.snapshot import Snapshot, snapshot_of
from container_healthcheck.model.verdict import Code, Fault
from tests.unit.containers import PATTERN, container
from tests.web.host import NOW, Host


@pytest.fixture
def host() -> Host:
    host = Host()
    containers = [container("a-1"), container("b-1", state="exited", status="Exited (1)")]
    host.shows(snapshot_of(containers, PATTERN, confirmed_at=NOW))
    return host


@pytest.fixture
def blind() -> Host:
    host = Host()
    host.shows(Snapshot(fault=Fault(Code.ENGINE_UNREACHABLE, "cannot connect to Docker")))
    return host
