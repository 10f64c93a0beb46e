"""The gateway's page in a real browser, in front of two APPO servers."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from sandbox import browser as chromium
from sandbox.browser import Browser, Window
from sandbox.gateway import GATEWAY_PORT, AppoServer, Gateway
from sandbox.network import Network
from sandbox.nginx import MODULES
from sandbox.waiting import wait_for, wait_until
from tests.conftest import give_up, require_engine

URL = f"http://127.0.0.1:{GATEWAY_PORT}/container-healthcheck-gateway"
APPS = ("a_good", "b_dies", "c_drained")
_NEEDED = {
    "nginx-core": shutil.which("nginx"),
    "libnginx-mod-http-lua": (MODULES / "ngx_http_lua_module.so").exists(),
    "lua-cjson": bool(list(MODULES.parent.parent.glob("*/lua/5.1/cjson.so"))),
}


@dataclass
class Fleet:
    """Two servers with the same apps, a gateway, and a browser on the same loopback."""

    servers: list[AppoServer]
    gateway: Gateway
    browser: Browser


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    require_engine()
    absent = [package for package, there in _NEEDED.items() if not there]
    problem = f"not installed: {absent}" if absent else chromium.missing()
    if problem:
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


def rows(window: Window) -> list[list[str]]:
    """Each app that is shown, with the class of its state on each server."""
    shown: list[list[str]] = window.run(
        "return [...document.querySelectorAll('tr[data-app]')].filter((row) => !row.hidden).map("
        "(row) => [row.dataset.app, ...[...row.querySelectorAll('td')].map((e) => e.className)])"
    )
    return shown


def shows(window: Window, *wanted: list[str]) -> None:
    wait_until(lambda: rows(window), [*wanted].__eq__, f"the page to show {wanted}")


GOOD = [[app_code, "good", "good"] for app_code in APPS]
DEAD = ["b_dies", "bad", "good"]


def test_it_follows_a_death_and_can_be_filtered(fleet: Fleet) -> None:
    first, second = (server.containers("b_dies")[-1] for server in fleet.servers)
    with fleet.browser.window() as window:
        window.open(URL)
        window.run("window.loadedOnce = true")
        shows(window, *GOOD)
        assert window.text("h1") == "All apps are healthy 3 healthy"

        first.kill()
        shows(window, DEAD, GOOD[0], GOOD[2])
        assert "not running 13" in window.text("tr[data-app=b_dies]")

        # Filters of the page, by the keyboard; what happens later keeps them.
        window.run("document.querySelector('input[name=trouble]').click()")
        shows(window, DEAD)
        second.kill()
        shows(window, ["b_dies", "bad", "bad"])
        assert "no server serves it" in window.text("tr[data-app=b_dies]")
        window.run("document.querySelector('input[name=trouble]').click()")
        window.run("document.querySelector('input[name=app_code]').focus()")
        for key in "GOOD":
            window.press(key)
        shows(window, GOOD[0])
        assert window.run("return document.activeElement.name") == "app_code"

        for _ in "GOOD":
            window.press("\ue003")
        for container in (first, second):
            container.start()
        shows(window, *GOOD)

        assert window.run("return window.loadedOnce === true")
        assert window.console() == []
        loaded = window.run("return performance.getEntriesByType('resource').map((e) => e.name)")
        for url in {*loaded, *window.asked_for()}:
            assert url.partition("?")[0] == URL or url == "data:,", url


def test_chinese_and_on_a_phone(fleet: Fleet) -> None:
    with fleet.browser.window("zh-CN,zh;q=0.9,en;q=0.8") as window:
        window.narrow(360, 640)
        window.open(URL)
        shows(window, *GOOD)
        assert "所有应用正常" in window.text("h1")
        across = "return [document.documentElement.scrollWidth, innerWidth]"
        assert window.run(across) == [360, 360]
        window.run("document.querySelector('#language').click()")
        wait_for(lambda: "All apps are healthy" in window.text("h1"), "the page in English")
        assert window.console() == []


def test_without_javascript(fleet: Fleet) -> None:
    with fleet.browser.window() as window:
        window.devtools("Emulation.setScriptExecutionDisabled", value=True)
        window.open(URL)
        shows(window, *GOOD)
        window.run("document.querySelector('input[name=app_code]').value = 'DRAINED'")
        window.run("document.querySelector('form button').click()")
        shows(window, GOOD[2])
        assert window.console() == []
