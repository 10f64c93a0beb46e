"""A real nginx with a configuration of one's own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sandbox.waiting import LIMIT, wait_for

MODULES = Path("/usr/lib/nginx/modules")
_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


@dataclass(frozen=True)
class Build:
    """How an nginx is called, where its modules are, and Lua for it, in files and in libraries.

    `edits` are what must read otherwise in a Lua module that is to run on it. `root` is the folder
    with all of it, when it is not this machine's own.
    """

    command: tuple[str, ...] = ("/usr/sbin/nginx",)
    modules: Path = MODULES
    root: Path | None = None
    lua: Path | None = None
    lua_libraries: Path | None = None
    edits: tuple[tuple[str, str], ...] = ()


class Nginx:
    """An nginx of our own with its folder; a context manager.

    `http` is its http block, in which `{folder}` means its folder.
    """

    def __init__(
        self,
        http: str,
        *,
        modules: Sequence[str] = (),
        workers: int = 1,
        build: Build = Build(),
        user: str = "root",
        connections: int = 4096,
    ) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="chc-nginx-")
        self.folder = Path(self._temporary.name)
        self.folder.chmod(0o755)
        self.access_log = self.folder / "access.log"
        self.error_log = self.folder / "error.log"
        configuration = str(self.folder / "nginx.conf")
        self._command = [*build.command, "-p", str(self.folder), "-c", configuration]
        self._modules = [build.modules / each for each in modules]
        self._workers = workers
        self._user = user
        self._connections = connections
        self._process: subprocess.Popen[bytes] | None = None
        self.write(http)

    def write(self, http: str) -> None:
        """Writes the configuration; it counts from the next start or reload on."""
        loads = "".join(f"load_module {each};\n" for each in self._modules)
        own = http.replace("{folder}", str(self.folder))
        paths = "".join(f"    {each}_temp_path {self.folder}/{each};\n" for each in _TEMPORARY)
        (self.folder / "nginx.conf").write_text(
            f"{loads}user {self._user};\nworker_processes {self._workers};\n"
            f"pid {self.folder}/pid;\n"
            f"error_log {self.error_log};\n"
            f"events {{ worker_connections {self._connections}; }}\n"
            f"http {{\n    access_log off;\n{paths}{own}\n}}\n"
        )

    def __enter__(self) -> Nginx:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(signal.SIGKILL)
        self._temporary.cleanup()

    def check(self) -> None:
        """Lets nginx check the configuration. Raises AssertionError with what it says."""
        self._command_line("-t")

    def _command_line(self, *arguments: str) -> None:
        done = subprocess.run([*self._command, *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        """Starts it and waits until it is ready."""
        self.check()
        self._process = subprocess.Popen(
            [*self._command, "-g", "daemon off;"],
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_for(self._has_started, "nginx to start")

    def _has_started(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"nginx ended: {self.log()}")
        return len(self.workers()) >= self._workers

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Ends master and workers, by SIGKILL or by a signal to the master, and waits."""
        if self._process is None:
            return
        workers = self.workers()
        self.signal(number) if number == signal.SIGKILL else self._process.send_signal(number)
        self._process.wait(timeout=LIMIT)
        self._process = None
        wait_for(lambda: not any(map(_is_alive, workers)), "nginx's workers to end")

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the master and all workers."""
        assert self._process is not None
        for pid in [self._process.pid, *self.workers()]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def heal(self) -> None:
        """Makes it run again: starts it when it was stopped, thaws it when it was frozen."""
        if self._process is None:
            self.start()
        self.signal(signal.SIGCONT)

    def workers(self) -> list[int]:
        """The process ids of the workers, those that are leaving included."""
        assert self._process is not None
        path = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            return [int(pid) for pid in path.read_text().split()]
        return []

    def reload(self) -> None:
        """Reloads the configuration and waits until the new workers serve."""
        self._command_line("-t")
        old = set(self.workers())
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)
        wait_for(lambda: len(set(self.workers()) - old) >= self._workers, "new workers")

    def log(self) -> str:
        """The error log."""
        return self.error_log.read_text()

    def requests_for(self, text: str) -> int:
        """How many lines of its access log, if `http` has it written, contain `text`."""
        return sum(text in line for line in self.access_log.read_text().splitlines())


def _is_alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
