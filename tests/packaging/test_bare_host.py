"""On a host with nothing but busybox, and a kernel that has what Linux 3.10 had."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.waiting import wait_until
from tests.packaging.conftest import TLS_PORT, Fleet
from tests.packaging.hosts import SECCOMP_3_10, Host, bare_root

# OpenSSL does without getrandom where uname tells of an old kernel, or where this shared memory
# says that /dev/random has been waited for. uname tells of the kernel that the test runs on.
_SEEDED = """
import ctypes
assert ctypes.CDLL(None).shmget(114, 1, 0o1444) >= 0
"""
_SERVE = """
/opt/container-healthcheck/bin/python3 -c "$SEEDED" &&
exec container-healthcheck serve -port {port} -logpath /var/log/container-healthcheck
"""


@pytest.fixture(scope="module")
def image(package: Path, fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> str:
    archive = bare_root(package, tmp_path_factory.mktemp("bare"))
    with archive.open("rb") as data:
        fleet.engine.client().api.import_image_from_data(data, "bare", "1")
    return "bare:1"


@pytest.fixture
def start(fleet: Fleet, image: str) -> Iterator[Callable[..., Host]]:
    started: list[Any] = []

    def start(port: int, **environment: str) -> Host:
        container = fleet.engine.client().containers.run(
            image,
            ["sh", "-c", _SERVE.format(port=port)],
            detach=True,
            network_mode="host",
            security_opt=[f"seccomp={SECCOMP_3_10}"],
            environment={"SEEDED": _SEEDED, **environment},
            volumes={
                str(fleet.socket_folder): {"bind": "/engine", "mode": "rw"},
                str(fleet.certificates): {"bind": "/certificates", "mode": "ro"},
            },
        )
        started.append(container)
        return Host(fleet.engine, container)

    yield start
    for container in started:
        container.remove(force=True)


@pytest.fixture
def app(fleet: Fleet, app_code: str) -> Iterator[str]:
    container = fleet.engine.run(f"{app_code}-1709878117")
    yield app_code
    container.remove(force=True)


def test_it_serves_checks_of_a_real_engine(start: Callable[..., Host], app: str) -> None:
    host = start(4251, DOCKER_HOST="unix:///engine/docker.sock")

    answer = wait_until(lambda: check(host, 4251, app), bool, "an answer")
    assert answer["code"] == 0
    assert answer["message"]["names"] == f"{app}-1709878117"


def test_it_serves_checks_over_tls(start: Callable[..., Host], app: str) -> None:
    host = start(
        4252,
        DOCKER_HOST=f"tcp://127.0.0.1:{TLS_PORT}",
        DOCKER_TLS_VERIFY="1",
        DOCKER_CERT_PATH="/certificates",
    )

    answer = wait_until(lambda: check(host, 4252, app), bool, "an answer")
    assert answer["code"] == 0, answer


def test_the_command_line_works_there(start: Callable[..., Host], app: str) -> None:
    host = start(4253, DOCKER_HOST="unix:///engine/docker.sock")
    wait_until(lambda: check(host, 4253, app), bool, "an answer")
    url = "--url http://127.0.0.1:4253/container-healthcheck"

    said = json.loads(host.run(f"container-healthcheck check {app} --json {url}"))
    assert said["code"] == 0
    assert host.run(f"container-healthcheck check {app} --direct").startswith(f"OK: {app}: ")
    host.run(f"container-healthcheck drain {app} --reason test {url}")
    assert check(host, 4253, app)["code"] == 15
    assert host.exit_code(f"container-healthcheck check {app} {url}") == 2
    host.run(f"container-healthcheck undrain {app}")
    assert check(host, 4253, app)["code"] == 0


def test_the_kernel_there_is_as_old_as_promised(start: Callable[..., Host]) -> None:
    host = start(4254, DOCKER_HOST="unix:///engine/docker.sock")
    python = "/opt/container-healthcheck/bin/python3"

    for call in ("os.getrandom(1)", "os.memfd_create('x')", "os.pidfd_open(1)"):
        said = host.run(f'{python} -c "import os; {call}"', check=False)
        assert "Function not implemented" in said
    assert host.exit_code("command -v python3 perl bash") != 0


def test_nothing_of_the_host_is_loaded(start: Callable[..., Host]) -> None:
    host = start(4255, DOCKER_HOST="unix:///engine/docker.sock")
    wait_until(lambda: host.ask("/health", 4255), bool, "an answer")
    maps = "cat /proc/[0-9]*/maps"

    loaded = {line.split()[-1] for line in host.run(maps).splitlines() if ".so" in line}

    assert len(loaded) > 10
    assert all(path.startswith("/opt/container-healthcheck/") for path in loaded)


def check(host: Host, port: int, app_code: str) -> Any:
    return host.ask(f"/apps/health/{app_code}", port)
