"""The host's page in a real browser, while things go wrong behind it."""

from __future__ import annotations

import os
import signal

from sandbox.browser import TAB, Browser
from sandbox.waiting import wait_for, wait_until
from tests.browser.conftest import Host, Page

HEALTHY, DEAD, FAILING, DRAINED = "healthy 0", "not running 13", "not answering 14", "drained 15"
HOSTILE = (
    "</bdi><script>document.title = 'owned'</script><img src=x onerror=document.title='owned'>"
)


def test_it_follows_what_happens(host: Host, page: Page) -> None:
    dying = host.deploy("b_dies")
    for app_code in ("a_fails", "c_drained"):
        host.deploy(app_code)
    page.open()
    page.shows(("a_fails", HEALTHY), ("b_dies", HEALTHY), ("c_drained", HEALTHY))
    assert page.window.text("h1") == "All apps are healthy 3 healthy"

    host.command("drain", "c_drained", "--reason", "disk change")
    page.shows(("c_drained", DRAINED), ("a_fails", HEALTHY), ("b_dies", HEALTHY))
    assert "disk change" in page.window.text(".apps tr.drained")

    dying.kill()
    page.shows(("b_dies", DEAD), ("c_drained", DRAINED), ("a_fails", HEALTHY))
    assert "b_dies-1709878117 is exited" in page.window.text(".apps tr.bad")

    host.appo.fails("a_fails")
    page.shows(("a_fails", FAILING), ("b_dies", DEAD), ("c_drained", DRAINED))
    assert "502 Bad Gateway" in page.window.text(".apps tr.bad")
    # Not the pass before: verdicts come first, and what the probes saw a moment later.
    assert "passed" not in page.window.text(".apps tr.bad .probe")
    assert page.window.text("h1") == "2 in trouble 1 drained"
    assert page.window.run("return document.title").startswith("(2) ")

    host.command("undrain", "c_drained")
    host.appo.serves("a_fails")
    dying.start()
    page.shows(("a_fails", HEALTHY), ("b_dies", HEALTHY), ("c_drained", HEALTHY))
    page.says(".changes", "c_drained drained 15 → healthy 0")
    assert page.was_not_reloaded()
    page.is_clean()


def test_docker_freezes(host: Host, page: Page) -> None:
    host.deploy("a_frozen")
    page.open()
    page.shows(("a_frozen", HEALTHY))

    host.engine.signal(signal.SIGSTOP)
    try:
        page.says("h1", "Docker is away")
        page.shows(("a_frozen", "unknown 11"))
        assert "does not answer in time" in page.window.text(".notice[role=status]")
    finally:
        host.engine.signal(signal.SIGCONT)

    page.shows(("a_frozen", HEALTHY))
    page.says("h1", "All apps are healthy")
    assert page.was_not_reloaded()
    page.is_clean()


def test_a_worker_is_killed(host: Host, page: Page) -> None:
    dying = host.deploy("a_dies")
    page.open()
    page.shows(("a_dies", HEALTHY))

    workers = host.service.workers()
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
        wait_for(
            lambda gone=worker: (  # type: ignore[misc]
                gone not in host.service.workers() and len(host.service.workers()) == len(workers)
            ),
            "another worker in its place",
        )
        dying.kill()
        page.shows(("a_dies", DEAD))
        dying.start()
        page.shows(("a_dies", HEALTHY))

    assert page.hears()
    assert page.was_not_reloaded()
    only_lost_connections(page)
    page.asked_nobody_else()


def test_the_service_stops_and_starts(host: Host, page: Page) -> None:
    dying = host.deploy("a_dies")
    page.open()
    page.shows(("a_dies", HEALTHY))

    host.service.stop()
    try:
        wait_for(lambda: not page.hears(), "the page to say that it hears nothing")
        page.says("#silence", "The service does not answer. What you see is from")
        # What was known last stays.
        assert page.rows() == [("a_dies", HEALTHY)]
        dying.kill()
    finally:
        host.service.start()

    page.shows(("a_dies", DEAD))
    wait_for(page.hears, "the page to hear of it again")
    assert page.was_not_reloaded()
    only_lost_connections(page)
    page.asked_nobody_else()


def only_lost_connections(page: Page) -> None:
    """Chromium itself notes each request that a server did not answer: no script can keep it."""
    for line in page.window.console():
        assert "Failed to load resource: net::ERR_" in line, line


def test_in_chinese(host: Host, browser: Browser) -> None:
    host.deploy("a_x").kill()
    with browser.window("zh-CN,zh;q=0.9,en;q=0.8") as window:
        page = Page(window, host)
        page.open()
        page.shows(("a_x", "未运行 13"))
        assert window.run("return document.documentElement.lang") == "zh-CN"

        window.run("document.querySelector('nav a[hreflang=en]').click()")
        page.shows(("a_x", DEAD))
        assert window.run("return location.search") == "?lang=en"
        window.run("document.querySelector('nav a[hreflang=zh]').click()")
        page.shows(("a_x", "未运行 13"))

        # What follows is in the language that was chosen.
        host.command("drain", "a_x")
        page.shows(("a_x", "已摘除 15"))
        host.command("undrain", "a_x")
        page.shows(("a_x", "未运行 13"))
        page.is_clean()


def test_on_a_phone(host: Host, page: Page) -> None:
    long = "a_" + "long" * 25
    host.deploy(long).kill()
    host.deploy("b_drained")
    host.command("drain", "b_drained", "--reason", HOSTILE + "x" * 300)
    page.window.narrow(360, 640)
    page.open()
    page.shows((long, DEAD), ("b_drained", DRAINED))

    across = "return [document.documentElement.scrollWidth, innerWidth]"
    assert page.window.run(across) == [360, 360]
    # All of it is seen: nothing is cut off beside the edge.
    assert page.window.run(
        "return [...document.querySelectorAll('main *')].every("
        "(each) => each.getBoundingClientRect().right <= innerWidth)"
    )
    host.command("undrain", "b_drained")
    page.shows((long, DEAD), ("b_drained", HEALTHY))
    page.is_clean()


def test_without_javascript(host: Host, page: Page) -> None:
    dying = host.deploy("a_dies")
    page.window.devtools("Emulation.setScriptExecutionDisabled", value=True)
    page.open()
    page.shows(("a_dies", HEALTHY))
    assert page.hears()

    dying.kill()
    host.service.settle("a_dies", 13)
    page.open()
    page.shows(("a_dies", DEAD))
    assert "is exited" in page.window.text(".apps tr.bad")
    page.is_clean()


def test_what_others_write_does_nothing(host: Host, page: Page) -> None:
    host.deploy("a_x")
    page.open()
    page.shows(("a_x", HEALTHY))

    host.command("drain", "a_x", "--reason", HOSTILE)
    page.shows(("a_x", DRAINED))
    harmless(page)
    page.open()
    harmless(page)

    host.command("undrain", "a_x")
    page.shows(("a_x", HEALTHY))
    page.is_clean()


def harmless(page: Page) -> None:
    assert HOSTILE in page.window.text(".apps tr.drained")
    assert "owned" not in page.window.run("return document.title")
    assert page.window.run("return document.querySelectorAll('img, main script').length") == 0


def test_the_reader_keeps_their_place(host: Host, page: Page) -> None:
    apps = [f"app_{number}" for number in range(8)]
    containers = {each: host.deploy(each) for each in apps}
    page.window.narrow(360, 300)
    page.open()
    page.shows(*((each, HEALTHY) for each in apps))
    focus = "return document.activeElement.innerText"
    for _ in range(20):
        if page.window.run(focus) == "app_4":
            break
        page.window.press(TAB)
    place = wait_until(lambda: page.window.run("return scrollY"), bool, "the page to be scrolled")

    containers["app_7"].kill()

    page.shows(("app_7", DEAD), *((each, HEALTHY) for each in apps[:-1]))
    assert page.window.run(focus) == "app_4"
    # A row has come above: at most so much may have moved.
    assert abs(page.window.run("return scrollY") - place) < 150
    page.window.press(TAB)
    assert page.window.run(focus) == "app_5"
    page.is_clean()
