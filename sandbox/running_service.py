"""A running service: the real command line, the real gunicorn, settings of one's own."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox.sockets import relay_of, serving_process
from sandbox.waiting import free_port, wait_for, wait_until

PREFIX = "CONTAINER_HEALTHCHECK_"
SOURCE = Path(__file__).parent.parent


@dataclass(frozen=True)
class Answer:
    """One HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def code(self) -> int:
        """The `code` of the envelope."""
        code: int = self.json["code"]
        return code


def ask(
    port: int,
    path: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    host: str = "127.0.0.1",
    timeout: float = 60,
) -> Answer:
    """One request on a connection of its own."""
    with closing(http.client.HTTPConnection(host, port, timeout=timeout)) as connection:
        return ask_on(connection, path, method=method, headers=headers)


def ask_on(
    connection: http.client.HTTPConnection,
    path: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """One request on a connection, whose requests one worker answers."""
    connection.request(method, path, headers=dict(headers or {}))
    response = connection.getresponse()
    return Answer(response.status, dict(response.getheaders()), response.read())


class RunningService:
    """`container-healthcheck serve` for one engine; a context manager.

    `settings` are the names of the settings without their prefix; by default it listens on a free
    port of 127.0.0.1, has one worker and keeps its marks in a temporary folder. `command` is what
    comes before `serve`, `namespace` what comes before everything (an `nsenter`, say).
    """

    def __init__(
        self,
        docker_host: str,
        *,
        flags: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        command: Sequence[str] = (sys.executable, "-m", "container_healthcheck"),
        namespace: Sequence[str] = (),
        cwd: Path = SOURCE,
        quiet: bool = True,
        **settings: object,
    ) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="chc-service-")
        self.log = Path(self.folder.name) / "log"
        self.prefix = "/container-healthcheck"
        given = {
            "bind": f"127.0.0.1:{free_port()}",
            "state_dir": self.folder.name,
            "workers": 1,
            **settings,
        }
        self.port = int(str(given["bind"]).rpartition(":")[2])
        self.host = str(given["bind"]).rpartition(":")[0]
        self._workers = int(str(given["workers"]))
        self.environment = {
            **os.environ,
            "DOCKER_HOST": docker_host,
            **{PREFIX + name.upper(): str(value) for name, value in given.items()},
            **(environment or {}),
        }
        self.namespace = namespace
        self.command: Sequence[str] = [*namespace, *command, "serve", *flags]
        self.final_log = ""
        self._cwd = cwd
        self._quiet = quiet
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> RunningService:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.final_log = self.log_text()
        self.folder.cleanup()

    def start(self) -> None:
        """Starts it, and waits until it answers and all its workers are there.

        Gunicorn makes them one after the other, and the first answers before the last is made.
        """
        with self.log.open("ab") as log:
            output = log if self._quiet else None
            self.process = subprocess.Popen(
                self.command, env=self.environment, cwd=self._cwd, stdout=output, stderr=output
            )
        wait_for(self._has_started, "the service to answer")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ends it, and returns its exit code."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(timeout=30)
        finally:
            self.process.kill()
            self.process = None

    def get(self, path: str, **options: Any) -> Answer:
        """Asks for a path below the prefix."""
        return ask(self.port, self.prefix + path, host=self.host, **options)

    def check(self, app_code: str) -> Answer:
        """The check of one app."""
        return self.get(f"/apps/health/{app_code}")

    def code(self, app_code: str) -> int:
        """The code of the check of one app."""
        return self.check(app_code).code

    def settle(self, app_code: str, code: int) -> None:
        """Waits until every worker says so, each by the last answer it gave."""
        said: dict[int, int] = {}

        def ask_one() -> dict[int, int]:
            workers = self.workers()
            worker, answered = self._code_by_worker(app_code, workers)
            said[worker] = answered
            return {each: said.get(each, -1) for each in workers}

        wait_until(
            ask_one,
            lambda codes: {*codes.values()} == {code},
            f"all workers to call {app_code} {code}",
        )

    def _code_by_worker(self, app_code: str, workers: Sequence[int]) -> tuple[int, int]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        with closing(connection):
            code = ask_on(connection, f"{self.prefix}/apps/health/{app_code}").code
            return serving_process(connection.sock, workers), code

    def workers(self) -> list[int]:
        """The process ids of gunicorn's workers."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def leader(self) -> int:
        """The process id of the worker that leads: the one that listens on the latest term."""
        return wait_until(lambda: relay_of(self.workers())[0], bool, "a leader")

    def relay_name(self) -> str:
        """The abstract name of the leader's Unix socket."""
        return wait_until(lambda: relay_of(self.workers())[1], bool, "a leader")

    def reload(self) -> None:
        """Replaces all workers, and waits until the old ones are gone."""
        assert self.process is not None
        old = set(self.workers())
        self.process.send_signal(signal.SIGHUP)
        wait_for(
            lambda: not old & set(self.workers()) and len(self.workers()) == self._workers,
            "new workers in place of the old",
        )

    def log_text(self) -> str:
        """What it has written to stderr and stdout."""
        return self.log.read_text()

    def answers(self) -> bool:
        """True when a worker answers."""
        try:
            return self.get("/health").status == 200
        except OSError:
            return False

    def _has_started(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"the service ended: {self.log_text()}")
        return self.answers() and len(self.workers()) >= self._workers
