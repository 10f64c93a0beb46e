"""Fixtures: one browser, and one service on an engine that the tests may freeze."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import docker.errors
import pytest

from sandbox import browser as chromium
from sandbox.browser import Browser, Window
from sandbox.private_engine import PrivateEngine
from sandbox.running_service import SOURCE, RunningService
from sandbox.waiting import wait_until
from tests.conftest import give_up, require_engine
from tests.integration.appo import Appo

QUICK: dict[str, Any] = {
    **{"docker_timeout": 1, "resync_interval": 1, "stale_after": 3},
    **{"probe_interval": 0.5, "probe_fall": 1},
}


class Host:
    """The service, its engine and its apps."""

    def __init__(self, engine: PrivateEngine, service: RunningService, appo: Appo) -> None:
        self.engine = engine
        self.service = service
        self.appo = appo
        self.url = f"http://{service.host}:{service.port}{service.prefix}"
        self._containers: list[Any] = []

    def deploy(self, app_code: str) -> Any:
        """Starts an app, and waits until every worker calls it healthy."""
        self.appo.serves(app_code)
        container = self.engine.run(f"{app_code}-1709878117")
        self._containers.append(container)
        self.service.settle(app_code, 0)
        return container

    def command(self, *arguments: str) -> None:
        """Runs `container-healthcheck` against the service."""
        subprocess.run(
            [sys.executable, "-m", "container_healthcheck", *arguments],
            cwd=SOURCE,
            env=self.service.environment,
            capture_output=True,
            check=True,
        )

    def clear(self) -> None:
        """Removes what was deployed, and waits until no worker knows it."""
        for each in self._containers:
            with contextlib.suppress(docker.errors.NotFound):
                each.remove(force=True)
        for each in self._containers:
            app_code = each.name.partition("-")[0]
            self.command("undrain", app_code)
            self.service.settle(app_code, 12)
        self._containers.clear()


class Page:
    """The host's page in a window."""

    def __init__(self, window: Window, host: Host) -> None:
        self.window = window
        self._host = host

    def open(self, query: str = "") -> None:
        """Loads it; from now on nothing may load it again."""
        self.window.open(self._host.url + query)
        self.window.run("window.loadedOnce = true")

    def rows(self) -> list[tuple[str, str]]:
        """Each app with its state and code, in their order."""
        names = self.window.run(
            "return [...document.querySelectorAll('.apps tbody tr')].map("
            "(row) => ['.app', '.verdict'].map((e) => row.querySelector(e).innerText.trim()))"
        )
        return [(name, " ".join(verdict.split())) for name, verdict in names]

    def shows(self, *rows: tuple[str, str]) -> None:
        """Waits until it shows these apps and no others, in this order."""
        wait_until(self.rows, [*rows].__eq__, f"the page to show {rows}")

    def says(self, selector: str, text: str) -> None:
        """Waits until the text is seen there."""
        wait_until(lambda: self.window.text(selector), lambda seen: text in seen, text)

    def hears(self) -> bool:
        """True unless it says that the service does not answer."""
        return bool(self.window.run("return document.querySelector('#silence').hidden"))

    def was_not_reloaded(self) -> bool:
        """True when it still is the page that was opened."""
        return bool(self.window.run("return window.loadedOnce === true"))

    def is_clean(self) -> None:
        """Asserts that nothing stands on the console, and only the service was asked."""
        assert self.window.console() == []
        self.asked_nobody_else()

    def asked_nobody_else(self) -> None:
        """Asserts that only the service was asked for anything, and only for the page."""
        loaded = self.window.run(
            "return performance.getEntriesByType('resource').map((e) => e.name)"
        )
        for url in {*loaded, *self.window.asked_for()}:
            assert url.partition("?")[0] == self._host.url or url == "data:,", url


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    problem = chromium.missing()
    if problem:
        give_up(problem)
    with Browser() as browser:
        yield browser


@pytest.fixture(scope="session")
def whole_host() -> Iterator[Host]:
    require_engine()
    with (
        PrivateEngine() as engine,
        Appo() as appo,
        RunningService(engine.url, workers=2, probe_url=appo.url, **QUICK) as service,
    ):
        yield Host(engine, service, appo)


@pytest.fixture
def host(whole_host: Host) -> Iterator[Host]:
    """The host, without any app before and after the test."""
    yield whole_host
    whole_host.clear()


@pytest.fixture
def page(browser: Browser, host: Host) -> Iterator[Page]:
    with browser.window() as window:
        yield Page(window, host)
