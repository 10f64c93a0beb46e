"""The gateway's page in a real browser, in front of two APPO servers."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from sandbox import browser as chromium
from sandbox.browser import BACKSPACE, Browser, Window
from sandbox.gateway import GATEWAY_PORT, AppoServer, Gateway
from sandbox.network import Network
from sandbox.running_service import ask
from sandbox.waiting import wait_for, wait_until
from tests.conftest import give_up, require_gateway
from tests.gateway.made_up import MadeUp, Verdicts, envelope

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
    """The page says so, in both languages, and where to look instead."""
    with fleet.browser.window() as window:
        window.devtools("Emulation.setScriptExecutionDisabled", value=True)
        window.open(URL)
        said = " ".join(window.texts(".notice"))
        assert "needs JavaScript" in said and "需要 JavaScript" in said
        assert window.run("return document.querySelector('main').offsetHeight") == 0
        window.run("document.querySelector('.notice a').click()")
        wait_for(lambda: "shared_dictionary" in window.text("body"), "the JSON")


# --- with servers that say what a test wants


@dataclass
class MadeUpFleet:
    """A gateway in front of three servers, and a browser on the same loopback."""

    servers: list[MadeUp]
    verdicts: list[Verdicts]
    gateway: Gateway
    browser: Browser


@pytest.fixture
def made_up() -> Iterator[MadeUpFleet]:
    require_gateway()
    if problem := chromium.missing():
        give_up(problem)
    verdicts = [Verdicts({"bk_iam": 0}) for _ in range(3)]
    with contextlib.ExitStack() as stack:
        stack.enter_context(stack.enter_context(Network()).entered())
        servers = [
            stack.enter_context(MadeUp(f"127.0.0.{number}", say))
            for number, say in enumerate(verdicts, 3)
        ]
        gateway = stack.enter_context(
            Gateway([each.name for each in servers], include=PLANT.format(name=servers[0].name))
        )
        for server in servers:
            gateway.get("/o/bk_iam/")
            gateway.await_state(server.name, "bk_iam", "up")
        yield MadeUpFleet(servers, verdicts, gateway, stack.enter_context(Browser()))


HOSTILE = (
    "</script><script>document.title='owned'</script><img src=x onerror=document.title='owned'>"
)
# Lays a record into the store as nothing would that comes from a service.
PLANT = (
    """
    server {{
        listen 127.0.0.1:8090;
        location / {{
            content_by_lua_block {{
                local dict, hostile = ngx.shared.container_healthcheck, """
    + json.dumps(HOSTILE)
    + """
                dict:set("record:{name}", require("cjson").encode({{
                    state = "known", since = 1, apps = {{ [hostile] = {{ 13, 1 }} }},
                }}))
                dict:incr("number:{name}", 1)
                dict:incr("version", 1)
            }}
        }}
    }}"""
)


def table(window: Window) -> list[list[str]]:
    """What the rows say, cell by cell."""
    shown: list[list[str]] = window.run(
        "return [...document.querySelectorAll('tbody tr')].map((row) =>"
        " [...row.children].map((cell) => cell.innerText))"
    )
    return [[" ".join(cell.split()) for cell in row] for row in shown]


def classes(window: Window, app: str) -> list[str]:
    """The classes of the cells of an app."""
    found: list[str] = window.run(
        "return [...document.querySelector(arguments[0]).children].map((cell) => cell.className)",
        f"tr[data-app={app}]",
    )
    return found


def test_what_is_worst_comes_first(made_up: MadeUpFleet) -> None:
    """Each cell has its state in a class and a word, since when, why."""
    codes = {
        "well": [0, 0, 0],
        "partly": [0, 14, 0],
        "spared": [0, 15, 0],
        "nowhere": [13, 14, 12],
    }
    for number, each in enumerate(made_up.verdicts):
        each.change({"bk_iam": 0, **{app: said[number] for app, said in codes.items()}})
    with made_up.browser.window() as window:
        window.open(URL)
        shows(window, "nowhere", "partly", "spared", "bk_iam", "well")
        nowhere, partly, spared, *_ = table(window)
        assert "no server serves it" in nowhere[0]
        assert sum("no server serves it" in row[0] for row in table(window)) == 1
        assert re.fullmatch(r"not running 13 \d+ (s|min) no healthy container", nowhere[1])
        assert re.fullmatch(r"up \d+ (s|min)", partly[1])
        assert re.fullmatch(r"not answering 14 \d+ (s|min) the app does not answer", partly[2])
        assert re.fullmatch(r"drained 15 \d+ (s|min)", spared[2])
        assert classes(window, "partly") == ["app", "good", "bad", "good"]
        assert classes(window, "spared") == ["app", "good", "drained", "good"]
        assert window.text("h1") == "1 app served nowhere 1 app in trouble 1 drained 2 healthy"
        assert window.run("return document.title").startswith("(2) ")

        window.open(f"{URL}?trouble=1&app_code=PART&lang=en")
        shows(window, "partly")
        assert window.run("return document.querySelector('#language').search") == (
            "?trouble=1&app_code=PART&lang=zh"
        )
        window.open(f"{URL}?trouble=1&app_code=iam")
        shows(window)
        assert "No app matches the filter." in window.text("main")
        assert window.console() == []


def test_servers_in_trouble(made_up: MadeUpFleet) -> None:
    """Of those of which nothing is known, and those without Docker, the page says why, once."""
    _, silent, without_docker = made_up.servers
    silent.say = lambda handler: handler.answer(b"nonsense", 404)
    without_docker.say = lambda handler: handler.answer(envelope("no socket", code=10), 503)
    with made_up.browser.window() as window:
        window.open(URL)
        wait_until(
            lambda: window.text("h1"), "2 servers in trouble 1 healthy".__eq__, "their trouble"
        )
        said = " ".join(window.texts("#notices p"))
        assert f"{silent.name}: nothing is known: status 404" in said
        assert f"{without_docker.name}: all apps down: no socket" in said
        assert classes(window, "bk_iam") == ["app", "good", "servers", "servers"]
        (row,) = table(window)
        assert row[2].startswith("unknown ") and row[3].startswith("Docker away 10")
        assert window.console() == []


def test_hostile_names_stay_text(made_up: MadeUpFleet) -> None:
    with made_up.browser.window() as window:
        window.open(URL)
        shows(window, "bk_iam")

        def planted() -> list[str]:
            ask(8090, "/")  # its watcher may just have put things right
            return rows(window)

        wait_until(planted, lambda shown: HOSTILE.lower() in shown, "the hostile app")
        assert window.run("return document.querySelectorAll('script, img').length") == 1
        assert "owned" not in window.run("return document.title")
        assert window.console() == []


def test_the_gateway_stops_answering(made_up: MadeUpFleet) -> None:
    with made_up.browser.window() as window:
        window.open(URL)
        shows(window, "bk_iam")
        made_up.gateway.nginx.stop()
        wait_for(lambda: "The gateway does not answer" in window.text("#silence"), "the notice")
        assert rows(window) == ["bk_iam"]
        made_up.gateway.nginx.start()
        wait_for(
            lambda: window.run("return document.querySelector('#silence').hidden"), "its return"
        )


@pytest.mark.parametrize(
    ("query", "liked", "language"),
    [
        ("", "zh-CN,zh;q=0.9,en;q=0.8", "zh-CN"),
        ("", "en-US,en;q=0.9,zh;q=0.8", "en"),
        ("", "fr,zh;q=0.5", "zh-CN"),
        ("", "fr", "en"),
        ("?lang=zh", "en", "zh-CN"),
        ("?lang=en", "zh", "en"),
        ("?lang=%3Cb%3E", "zh", "zh-CN"),
        ("?lang=toString", "en", "en"),
    ],
)
def test_the_language(fleet: Fleet, query: str, liked: str, language: str) -> None:
    with fleet.browser.window(liked) as window:
        window.open(URL + query)
        shows(window, *APPS)
        assert window.run("return document.documentElement.lang") == language
        assert ("所有应用正常" in window.text("h1")) == (language == "zh-CN")
        assert window.console() == []
