"""The demo: what it shows, and that nothing of it is left, whatever ends it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandbox.running_service import SOURCE, ask
from sandbox.waiting import wait_for
from tests.conftest import give_up, require_gateway

UP = "It stays up until Ctrl-C"
TRIED = "# thaw it"


class RunningDemo:
    """A demo with a folder of its own for what is temporary, and what it has said so far."""

    def __init__(self, before: str = "") -> None:
        # Not pytest's folder: the path of a Unix socket has to be short.
        self.folder = Path(tempfile.mkdtemp(prefix="d-"))
        self.process = subprocess.Popen(
            [*_prepared(before), sys.executable, "-m", "sandbox.demo"],
            cwd=SOURCE,
            env={**os.environ, "TMPDIR": str(self.folder), "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.said = ""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line

    def await_text(self, text: str) -> None:
        """Waits until it has said that."""
        wait_for(lambda: text in self.said or self.process.poll() is not None, f"{text!r}")
        assert text in self.said, self.said

    def end(self, number: signal.Signals) -> int:
        """Sends it a signal, and waits until nothing is left; its exit code."""
        self.process.send_signal(number)
        code = self.process.wait(timeout=60)
        wait_for(lambda: not self.processes(), f"the processes to end:\n{self.said}")
        wait_for(lambda: not list(self.folder.iterdir()), f"{self.folder} to be empty")
        self._reader.join()
        return code

    def processes(self) -> list[str]:
        """The processes that were started by it, but for itself."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"TMPDIR={self.folder}".encode() in (process / "environ").read_bytes():
                    found.append((process / "cmdline").read_text())
        return found

    def close(self) -> None:
        """Ends it somehow."""
        self.process.kill()
        self.process.wait()
        wait_for(lambda: not self.processes(), "the processes to end")
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()
        shutil.rmtree(self.folder)


def _prepared(script: str) -> list[str]:
    """What runs a command after a shell script, in a mount namespace of its own."""
    return ["unshare", "--mount", "sh", "-ec", f'{script}\nexec "$@"', "sh"]


@pytest.fixture
def start() -> Iterator[Callable[..., RunningDemo]]:
    require_gateway()
    if shutil.which("curl") is None:
        give_up("not installed: curl")
    demos: list[RunningDemo] = []

    def start(before: str = "") -> RunningDemo:
        demos.append(RunningDemo(before))
        return demos[-1]

    yield start
    for demo in demos:
        demo.close()


def cgroups() -> set[str]:
    return {folder for folder, _, _ in os.walk("/sys/fs/cgroup") if "/chc-" in folder}


def test_it_shows_the_mission(start: Callable[..., RunningDemo]) -> None:
    demo = start()
    demo.await_text(TRIED)

    assert '{"code":0,"status":"ok","message":"i\'m healthy"}' in demo.said
    assert '"names":"bk_iam-1709878117"' in demo.said, demo.said
    gets = re.search(r"GETs: (\d+), failed: (\d+)\.", demo.said)
    assert gets is not None and int(gets[1]) >= 50 and gets[2] == "0", demo.said
    assert re.search(r"The gateway knew \d+ ms after", demo.said)
    assert re.search(r"127\.0\.0\.1 answered \d+ before the kill, and 0 once", demo.said), demo.said
    assert re.search(r"127\.0\.0\.2 answered \d+ before the kill, and [1-9]\d* once", demo.said)
    assert "127.0.0.1:8010 bk_iam: up -> down, code 13" in demo.said, demo.said
    assert "bk_iam: 0 -> 13: bk_iam-1709878117 is exited" in demo.said, demo.said


def test_what_it_says_to_try_works(start: Callable[..., RunningDemo]) -> None:
    demo = start()
    demo.await_text(TRIED)
    commands = dict(re.findall(r"^  # (.*)\n  (.*)$", demo.said, re.MULTILINE))
    base = re.search(r"http://127\.0\.0\.1:(\d+)/container-healthcheck/apps\b", demo.said)
    assert base is not None

    def code(app_code: str) -> int:
        path = f"/container-healthcheck/apps/health/{app_code}"
        return ask(int(base[1]), path).code

    def settle(wanted: int, what: str) -> None:
        # Both workers are to say so, and a hundred answers in a row are hardly those of one.
        wait_for(lambda: {code("bk_iam") for _ in range(100)} == {wanted}, what)

    def run(what: str) -> None:
        subprocess.run(commands[what], shell=True, cwd=SOURCE, check=True, stdout=subprocess.PIPE)

    run("bring the container back")
    settle(0, "bk_iam to be back")
    run("a table of all apps")
    run("take an app out on purpose")
    assert code("bk_iam") == 15
    run("put it back")
    settle(0, "bk_iam to be put back")
    run("freeze dockerd")
    settle(11, "dockerd to be missed")
    run("thaw it")
    settle(0, "dockerd to be back")
    run("kill it again")
    settle(13, "the container to be dead")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_and_leaves_nothing(
    start: Callable[..., RunningDemo], number: signal.Signals
) -> None:
    # As a script starts what it puts into the background.
    demo = start("trap '' INT")
    demo.await_text(UP)

    assert demo.end(number) == 0
    assert demo.said.endswith("\nEverything is stopped and removed.\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("moment", ["==> Starting", "==> Users ask", UP])
def test_nothing_is_left_when_it_ends_halfway(
    start: Callable[..., RunningDemo], number: signal.Signals, moment: str
) -> None:
    demo = start()
    demo.await_text(moment)
    theirs = {each for each in cgroups() if any(map(each.count, names(demo)))}

    demo.end(number)

    assert not theirs & cgroups()


def names(demo: RunningDemo) -> list[str]:
    return [each.name for each in demo.folder.glob("chc-world-*/chc-*")]


def test_a_taken_port_is_named(start: Callable[..., RunningDemo]) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            taken.bind(("127.0.0.1", 4246))
            taken.listen()
        demo = start()
        demo.await_text(UP)

    assert "127.0.0.1:4246 is taken by another program: the demo takes 127.0.0.1:" in demo.said
    assert demo.end(signal.SIGINT) == 0


def test_an_ordinary_user_is_told() -> None:
    demo = "import os, sys, sandbox.demo; os.geteuid = lambda: 1000; sys.exit(sandbox.demo.main())"
    done = subprocess.run([sys.executable, "-c", demo], cwd=SOURCE, capture_output=True)

    assert done.returncode == 1
    assert done.stderr == b"The demo cannot run here: a private Docker engine needs root.\n"


def test_without_lua_the_rest_is_shown(start: Callable[..., RunningDemo]) -> None:
    demo = start("mount -t tmpfs tmpfs /usr/lib/*/lua/5.1")
    demo.await_text(UP)

    assert "There is no gateway here: " in demo.said
    assert re.search(r"The service knew \d+ ms after", demo.said)
    assert '{"code":13,"status":"error","message":"bk_iam-1709878117 is exited' in demo.said
    assert demo.end(signal.SIGINT) == 0
