"""The gateway's page in a real browser, in front of two APPO servers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from sandbox import browser as chromium
from sandbox.browser import BACKSPACE, Browser, Window
from sandbox.gateway import GATEWAY_PORT, AppoServer, Gateway
from sandbox.network import Network
from sandbox.waiting import wait_for, wait_until
from tests.conftest import give_up, require_gateway

URL = f"http://127.0.0.1:{GATEWAY_PORT}/container-healthcheck-gateway"
APPS = ("a_good", "b_dies", "c_drained")


@dataclass
class Fleet:
    """Two servers with the same apps, a gateway, and a browser on the same loopback."""

    servers: list[AppoServer]
    gateway: Gateway
    browser: Browser


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    require_gateway()
    if problem := chromium.missing():
        give_up(problem)
    with contextlib.ExitStack() as stack:
        stack.enter_context(stack.enter_context(Network()).entered())
        servers = [stack.enter_context(AppoServer(f"127.0.0.{number}")) for number in (1, 2)]
        for server in servers:
            for app_code in APPS:
                server.deploy(app_code)
        gateway = stack.enter_context(Gateway([each.name for each in servers]))
        for app_code in APPS:
            gateway.get(f"/o/{app_code}/")
            for server in servers:
                gateway.await_state(server.name, app_code, "up")
        yield Fleet(servers, gateway, stack.enter_context(Browser()))


def rows(window: Window) -> list[str]:
    """The apps that are shown, in their order."""
    shown: list[str] = window.run(
        "return [...document.querySelectorAll('tbody tr')].filter((row) => !row.hidden).map("
        "(row) => row.dataset.app)"
    )
    return shown


def shows(window: Window, *wanted: str) -> None:
    wait_until(lambda: rows(window), [*wanted].__eq__, f"the page to show {wanted}")


def test_it_follows_deaths_and_keeps_its_filters(fleet: Fleet) -> None:
    first, second = (server.containers("b_dies")[-1] for server in fleet.servers)
    with fleet.browser.window() as window:
        window.open(URL)
        window.run("window.loadedOnce = true")
        shows(window, *APPS)

        first.kill()
        shows(window, "b_dies", "a_good", "c_drained")
        dead = "tr[data-app=b_dies]"
        assert "no server serves it" not in window.text(dead)

        window.run("document.querySelector('input[name=trouble]').click()")
        shows(window, "b_dies")
        second.kill()
        wait_for(lambda: "no server serves it" in window.text(dead), "the second death")
        assert rows(window) == ["b_dies"]
        window.run("document.querySelector('input[name=trouble]').click()")
        window.run("document.querySelector('input[name=app_code]').focus()")
        for key in "good":
            window.press(key)
        shows(window, "a_good")
        assert window.run("return document.activeElement.name") == "app_code"

        for _ in "good":
            window.press(BACKSPACE)
        for container in (first, second):
            container.start()
        shows(window, *APPS)

        assert window.run("return window.loadedOnce === true")
        assert window.console() == []
        loaded = window.run("return performance.getEntriesByType('resource').map((e) => e.name)")
        for url in {*loaded, *window.asked_for()}:
            assert url.partition("?")[0] == URL or url == "data:,", url


def test_in_chinese_and_on_a_phone(fleet: Fleet) -> None:
    language = "return document.documentElement.lang"
    with fleet.browser.window("zh-CN,zh;q=0.9,en;q=0.8") as window:
        window.narrow(360, 640)
        window.open(URL)
        shows(window, *APPS)
        assert window.run(language) == "zh-CN"
        across = "return [document.documentElement.scrollWidth, innerWidth]"
        assert window.run(across) == [360, 360]
        window.run("document.querySelector('nav a[hreflang=en]').click()")
        wait_for(lambda: window.run(language) == "en", "the page in English")
        shows(window, *APPS)
        assert window.console() == []


def test_without_javascript(fleet: Fleet) -> None:
    with fleet.browser.window() as window:
        window.devtools("Emulation.setScriptExecutionDisabled", value=True)
        window.open(URL)
        shows(window, *APPS)
        window.run("document.querySelector('input[name=app_code]').value = 'drained'")
        window.run("document.querySelector('form button').click()")
        shows(window, "c_drained")
        assert window.console() == []
