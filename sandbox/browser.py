"""Debian's Chromium, headless, through its WebDriver: one process, a window for each page.

A window asks for nothing but what is on the loopback, and begins without cookies, cache and log.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sandbox import programs
from sandbox.waiting import LIMIT, free_port, wait_for

# As the keyboard's keys are called in WebDriver.
TAB = "\ue004"
BACKSPACE = "\ue003"
_PROGRAMS = ("chromium", "chromedriver", "unshare")
_FLAGS = (
    "--headless=new",
    # Chromium refuses its own sandbox to root; the pages are ours.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.*",
    "--window-size=1200,900",
)


class BrowserError(Exception):
    """The browser refuses a command; the text is what it says."""


def missing() -> str | None:
    """What keeps this machine from running the browser, or None."""
    return programs.missing("the browser's namespace", _PROGRAMS, "chromium, chromium-driver")


class Browser:
    """A context manager. All its processes are in a namespace, and end with the first one there."""

    def __init__(self) -> None:
        self._port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="chc-browser-"))
        self._log = self._folder / "log"
        self._driver: subprocess.Popen[bytes] | None = None
        self._session = ""

    def __enter__(self) -> Browser:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends it and removes what it wrote."""
        if self._driver is not None:
            if self._session:
                # It may be gone, or hang; then it is killed.
                with contextlib.suppress(OSError, http.client.HTTPException, BrowserError):
                    self.ask("DELETE", "", timeout=10)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._driver.pid, signal.SIGKILL)
            self._driver.wait(timeout=LIMIT)
            self._driver = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self) -> None:
        # The programs' homes, as well as the profile, in a folder that goes away.
        homes = ("HOME", "TMPDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")
        namespace = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
        with self._log.open("ab") as log:
            self._driver = subprocess.Popen(
                [*namespace, "chromedriver", f"--port={self._port}"],
                env={**os.environ, **dict.fromkeys(homes, str(self._folder))},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_for(self._answers, "the browser's driver to answer")
        options = {
            "args": [*_FLAGS, f"--user-data-dir={self._folder / 'profile'}"],
            "binary": shutil.which("chromium"),
        }
        always = {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        asked = {"capabilities": {"alwaysMatch": always}}
        self._session = self._send("POST", "/session", asked)["sessionId"]

    def _answers(self) -> bool:
        assert self._driver is not None
        if self._driver.poll() is not None:
            raise BrowserError(self._log.read_text())
        with contextlib.suppress(OSError):
            return bool(self._send("GET", "/status")["ready"])
        return False

    @contextlib.contextmanager
    def window(self, language: str = "en") -> Iterator[Window]:
        """A window of its own, in front, that asks for pages in this language."""
        handle = self.ask("POST", "/window/new", {"type": "window"})["handle"]
        first = self.ask("GET", "/window")
        self.ask("POST", "/window", {"handle": handle})
        window = Window(self)
        window.forget()
        window.devtools("Network.enable")
        window.devtools("Network.setExtraHTTPHeaders", headers={"Accept-Language": language})
        # The same for scripts.
        agent = window.run("return navigator.userAgent")
        window.devtools("Emulation.setUserAgentOverride", userAgent=agent, acceptLanguage=language)
        window.devtools("Emulation.setEmulatedMedia", features=[_LIGHT])
        try:
            yield window
        finally:
            self.ask("DELETE", "/window")
            self.ask("POST", "/window", {"handle": first})

    def ask(self, method: str, path: str, body: Any = None, timeout: float = 2 * LIMIT) -> Any:
        """A command to the session."""
        return self._send(method, f"/session/{self._session}{path}", body, timeout)

    def _send(self, method: str, path: str, body: Any = None, timeout: float = 2 * LIMIT) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=timeout)
        with contextlib.closing(connection):
            content = json.dumps(body or {}) if method == "POST" else None
            connection.request(method, path, content, {"Content-Type": "application/json"})
            value = json.loads(connection.getresponse().read())["value"]
        if isinstance(value, dict) and "error" in value:
            raise BrowserError(f"{value['error']}: {value['message']}")
        return value


_LIGHT = {"name": "prefers-color-scheme", "value": "light"}


class Window:
    """What is done with the window in front."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._console: list[str] = []

    def open(self, url: str) -> None:
        """Loads a page."""
        self._browser.ask("POST", "/url", {"url": url})

    def run(self, script: str, *arguments: Any) -> Any:
        """What the body of a function returns; that works without the page's JavaScript, too."""
        body = {"script": script, "args": list(arguments)}
        return self._browser.ask("POST", "/execute/sync", body)

    def devtools(self, command: str, **parameters: Any) -> Any:
        """A command of the DevTools' protocol."""
        body = {"cmd": command, "params": parameters}
        return self._browser.ask("POST", "/goog/cdp/execute", body)

    def text(self, selector: str) -> str:
        """The text that is seen of the first such element, its white space as single spaces."""
        seen = self.run("return document.querySelector(arguments[0])?.innerText ?? ''", selector)
        return " ".join(str(seen).split())

    def texts(self, selector: str) -> list[str]:
        """That of all such elements, in their order."""
        script = "return [...document.querySelectorAll(arguments[0])].map((e) => e.innerText)"
        return [" ".join(str(each).split()) for each in self.run(script, selector)]

    def press(self, key: str) -> None:
        """Presses a key."""
        keys = [{"type": kind, "value": key} for kind in ("keyDown", "keyUp")]
        actions = [{"type": "key", "id": "keyboard", "actions": keys}]
        self._browser.ask("POST", "/actions", {"actions": actions})

    def narrow(self, width: int, height: int) -> None:
        """Makes it as small as a phone."""
        size = {"width": width, "height": height, "deviceScaleFactor": 2, "mobile": True}
        self.devtools("Emulation.setDeviceMetricsOverride", **size)

    def console(self) -> list[str]:
        """What the console has shown since the window was opened."""
        entries = self._browser.ask("POST", "/se/log", {"type": "browser"})
        self._console += [f"{each['level']}: {each['message']}" for each in entries]
        return self._console

    def asked_for(self) -> set[str]:
        """What pages asked for, since this was asked last."""
        entries = self._browser.ask("POST", "/se/log", {"type": "performance"})
        messages = [json.loads(each["message"])["message"] for each in entries]
        requests = [
            each["params"] for each in messages if each["method"] == "Network.requestWillBeSent"
        ]
        # Its own page for new windows the browser loads whenever it likes.
        return {
            each["request"]["url"]
            for each in requests
            if not each["documentURL"].startswith(("chrome://", "chrome-untrusted://"))
        }

    def forget(self) -> None:
        """Empties the logs."""
        self.console().clear()
        self.asked_for()

    def picture(self, width: int, scale: float = 1) -> bytes:
        """A PNG of the whole page at this width."""
        size = {"width": width, "height": 1, "deviceScaleFactor": scale, "mobile": False}
        self.devtools("Emulation.setDeviceMetricsOverride", **size)
        size["height"] = self.run("return document.documentElement.scrollHeight")
        self.devtools("Emulation.setDeviceMetricsOverride", **size)
        taken = self.devtools("Page.captureScreenshot", format="png")
        return base64.b64decode(taken["data"])
