"""Fixtures: Prometheus as each Debian has it, which is unpacked and not installed."""

from __future__ import annotations

import pytest

from sandbox import debian_release
from tests.conftest import give_up


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
