"""Fixtures: Prometheus as each Debian has it, which is unpacked and not installed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from sandbox import debian_release
from sandbox.network import Network
from tests.conftest import give_up, require_gateway
from tests.monitoring.life import Life


def unpacked(release: str) -> debian_release.Prometheus:
    """The commands of a release's Prometheus, or a test that gives up."""
    try:
        return debian_release.prometheus(release)
    except debian_release.DebianError as error:
        give_up(str(error))


@pytest.fixture(scope="session", params=["bookworm", "trixie"])
def release(request: pytest.FixtureRequest) -> str:
    """Each of the releases that the recipes are for."""
    name: str = request.param
    unpacked(name)
    return name


@pytest.fixture(scope="session")
def network() -> Iterator[Network]:
    """A network namespace for what these tests start."""
    require_gateway()
    with Network() as network:
        yield network


@pytest.fixture
def inside(network: Network) -> Iterator[None]:
    """Puts a test into the namespace."""
    with network.entered():
        yield


@pytest.fixture(scope="session")
def whole_life(network: Network) -> Iterator[Life]:
    """A life that has been lived, once for all tests."""
    unpacked("bookworm")
    with contextlib.ExitStack() as stack:
        with network.entered():
            life = stack.enter_context(Life("bookworm"))
            life.is_lived()
        # Left again, so that other tests keep their network.
        yield life


@pytest.fixture
def life(inside: None, whole_life: Life) -> Life:
    """The same, and its Prometheus can be asked."""
    return whole_life
