"""Fixtures: two APPO servers and a gateway, in a network namespace that the tests make.

The namespace is entered for each test and left after it, so that other tests keep their network.
With `--nginx-of RELEASE` the gateway is the nginx of that Debian release. `--older-nginx` means
that of Debian 11, with a lua-nginx-module that is older than OpenResty 1.15.8.3's.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
from collections.abc import Iterator

import pytest

from sandbox import debian_release
from sandbox.debian_release import RELEASES
from sandbox.gateway import AppoServer, Gateway
from sandbox.network import Network
from tests.conftest import give_up, require_gateway
from tests.gateway.asking import APP
from tests.gateway.made_up import MadeUp, Verdicts

_numbers = itertools.count(1)
_PROGRAMS = ("curl", "jq")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--nginx-of", choices=RELEASES, help="run the gateway on that of this Debian")
    parser.addoption("--older-nginx", action="store_const", const="bullseye", dest="nginx_of")


@pytest.fixture(scope="session", autouse=True)
def build(request: pytest.FixtureRequest) -> Iterator[None]:
    """The nginx that all gateways run on."""
    release = request.config.getoption("nginx_of")
    with pytest.MonkeyPatch.context() as patch:
        if release:
            try:
                patch.setattr(Gateway, "build", debian_release.nginx(release))
            except debian_release.DebianError as error:
                give_up(str(error))
        yield


@pytest.fixture(scope="session")
def network() -> Iterator[Network]:
    """A network namespace for all gateway tests."""
    require_gateway()
    absent = [each for each in _PROGRAMS if shutil.which(each) is None]
    if absent:
        give_up(f"not installed: {absent}")
    with Network() as network:
        yield network


@pytest.fixture(autouse=True)
def inside(network: Network) -> Iterator[None]:
    """Puts each test, and what it starts, into the namespace."""
    with network.entered():
        yield


@pytest.fixture(scope="session")
def servers(network: Network) -> Iterator[tuple[AppoServer, AppoServer]]:
    """Two APPO servers for all tests, which may break them: `appos` mends them."""
    with contextlib.ExitStack() as stack:
        with network.entered():
            first = stack.enter_context(AppoServer("127.0.0.1"))
            second = stack.enter_context(AppoServer("127.0.0.2"))
        yield first, second


@pytest.fixture
def appos(inside: None, servers: tuple[AppoServer, AppoServer]) -> Iterator[list[AppoServer]]:
    """Two APPO servers; what a test did to them is mended after it."""
    yield list(servers)
    for server in servers:
        server.heal()
        server.clear()


@pytest.fixture
def app(appos: list[AppoServer]) -> str:
    """An app that serves on both servers, and that no other test uses."""
    app_code = f"app{next(_numbers)}_x"
    for server in appos:
        server.deploy(app_code, wait=False)
    for server in appos:
        server.await_app(app_code)
    return app_code


@pytest.fixture
def gateway(appos: list[AppoServer], app: str) -> Iterator[Gateway]:
    """A gateway that knows that the app is up on both servers."""
    with Gateway([each.name for each in appos], apps=[app, "no_such_app"]) as gateway:
        gateway.get(f"/o/{app}/")
        for server in appos:
            gateway.await_state(server.name, app, "up")
        yield gateway


@pytest.fixture(params=["location", "upstream"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the Lua is: tests that use this run once with each."""
    monkeypatch.setattr(Gateway, "way", request.param)
    return str(request.param)


@pytest.fixture
def verdicts() -> list[Verdicts]:
    """What the services of the three servers say."""
    return [Verdicts({APP: 0}) for _ in range(3)]


@pytest.fixture
def three(inside: None, verdicts: list[Verdicts]) -> Iterator[list[MadeUp]]:
    """Three servers."""
    with (
        MadeUp("127.0.0.3", verdicts[0]) as first,
        MadeUp("127.0.0.4", verdicts[1]) as second,
        MadeUp("127.0.0.5", verdicts[2]) as third,
    ):
        yield [first, second, third]
