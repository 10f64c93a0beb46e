"""Fixtures: one private engine for the whole run, and fresh names in it for each test."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import docker.errors
import pytest
from hypothesis import HealthCheck, settings

from sandbox import debian_release, gateway, private_engine
from sandbox.private_engine import PrivateEngine
from sandbox.proxy import EngineProxy
from sandbox.running_service import SOURCE, RunningService

# Of the services that tests start, greenlets are measured as well. Not of the tests: on Python 3.11
# tracing never ends when it meets two threads that have ended and that greenlet has known.
if os.environ.get("PYTEST_XDIST_WORKER") and os.environ.pop("COVERAGE_PROCESS_CONFIG", None):
    os.environ["COVERAGE_PROCESS_START"] = str(SOURCE / "pyproject.toml")
    os.environ["COVERAGE_FILE"] = str(SOURCE / ".coverage")

# Random lives take the time that the machine has: on a busy one, no example is too slow. They are
# the same ones in each run, but for --hypothesis-profile=fresh, which prints how to repeat one.
_UNHURRIED: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("repeatable", derandomize=True, database=None, **_UNHURRIED)
settings.register_profile("fresh", derandomize=False, print_blob=True, **_UNHURRIED)
settings.load_profile("repeatable")

_numbers = itertools.count(1)


def give_up(problem: str) -> NoReturn:
    """Skips a test that lacks something; in CI that is a failure."""
    if os.environ.get("CI"):
        pytest.fail(problem)
    pytest.skip(problem)


def require_engine() -> None:
    """Gives up where no engine can run."""
    problem = private_engine.missing()
    if problem:
        give_up(problem)


def require_gateway() -> None:
    """Gives up where no gateway with its APPO servers can run."""
    require_engine()
    problem = gateway.missing()
    if problem:
        give_up(problem)


@pytest.fixture(scope="session")
def consul_program() -> Path:
    """Debian 11's Consul: fetched before any test enters a namespace without a network."""
    try:
        return debian_release.consul()
    except debian_release.DebianError as error:
        give_up(str(error))


@pytest.fixture(scope="session")
def engine() -> Iterator[PrivateEngine]:
    """A private engine that all tests share: they must not break it."""
    require_engine()
    with PrivateEngine() as engine:
        yield engine


@pytest.fixture(scope="session")
def service(engine: PrivateEngine) -> Iterator[RunningService]:
    """A service on the shared engine, with the defaults, but one worker."""
    with RunningService(engine.url) as service:
        yield service


@pytest.fixture
def app_code() -> str:
    """An app code that no other test uses."""
    return f"app{next(_numbers)}_x"


@pytest.fixture
def run(engine: PrivateEngine) -> Iterator[Callable[..., Any]]:
    """Starts containers on the shared engine, and removes them after the test."""
    started: list[Any] = []

    def start(name: str, **options: Any) -> Any:
        container = engine.run(name, **options)
        started.append(container)
        return container

    yield start
    for container in started:
        with contextlib.suppress(docker.errors.NotFound):
            container.remove(force=True)


@pytest.fixture
def proxy(engine: PrivateEngine) -> Iterator[EngineProxy]:
    """A way to the shared engine that counts, and can misbehave."""
    with EngineProxy(engine.socket) as proxy:
        yield proxy
