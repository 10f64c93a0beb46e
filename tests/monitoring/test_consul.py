"""What Consul knows is scraped: Prometheus and Consul of Debian 11, the last that fit together."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.prometheus import RECIPES, Prometheus
from sandbox.running_service import ask
from sandbox.waiting import wait_for, wait_until
from tests.monitoring.conftest import unpacked

SERVICES = ("consul-service.json", "consul-gateway-service.json")


@pytest.fixture
def consul(consul_program: Path, inside: None, tmp_path: Path) -> Iterator[None]:
    """An agent that has been told of an APPO server and a gateway, on one address."""
    folder = tmp_path / "consul"
    folder.mkdir()
    for each in SERVICES:
        shutil.copy(RECIPES / each, folder)
    agent = {"disable_update_check": True, "node_name": "appo-1", "bind_addr": "127.0.0.1"}
    (folder / "agent.json").write_text(json.dumps(agent))
    process = subprocess.Popen(
        [consul_program, "agent", "-dev", "-config-dir", folder],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        # Prometheus asks, and then not again for fifteen seconds.
        wait_for(knows_its_services, "Consul to know its services")
        yield
    finally:
        process.kill()
        process.wait()


def knows_its_services() -> bool:
    with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
        return {"container-healthcheck", "container-healthcheck-gateway"} <= {
            *ask(8500, "/v1/catalog/services").json
        }
    return False


@pytest.fixture(scope="session")
def older() -> str:
    """The release whose Prometheus knows Consul."""
    unpacked("bullseye")
    return "bullseye"


def test_servers_and_gateways_are_found(older: str, consul: None) -> None:
    found = {
        ("http://127.0.0.1:8010/container-healthcheck/metrics", "container-healthcheck", "appo-1"),
        (
            "http://127.0.0.1:8079/container-healthcheck-gateway?format=prometheus",
            "container-healthcheck-gateway",
            "appo-1",
        ),
    }
    with Prometheus(older, {}, configuration="prometheus-consul.yml", rules=()) as prometheus:
        wait_until(
            lambda: {
                (each["scrapeUrl"], each["labels"]["job"], each["labels"]["node"])
                for each in prometheus.get("targets")["activeTargets"]
            },
            found.__eq__,
            "Prometheus to have found both",
        )
