"""A real nginx with a configuration of one's own, standing in for the APPO's."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from sandbox.waiting import wait_for


class RunningNginx:
    """An nginx in a temporary folder; a context manager.

    `http` is what stands inside the `http` block, where `{folder}` is its folder. `main` stands
    before it, and `namespace` before the command (an `nsenter`, say).
    """

    def __init__(self, http: str, *, main: str = "", namespace: Sequence[str] = ()) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="chc-nginx-")
        self.folder = Path(self._folder.name)
        # Its workers leave root's rights behind, and must still reach their folder.
        self.folder.chmod(0o755)
        self.configuration = self.folder / "nginx.conf"
        self.access_log = self.folder / "access.log"
        self.error_log = self.folder / "error.log"
        self._namespace = namespace
        self.configuration.write_text(
            f"{main}\ndaemon off; pid {self.folder}/pid; error_log {self.error_log} info;\n"
            "worker_processes 2; events { worker_connections 4096; }\n"
            f"http {{ access_log {self.access_log};\n"
            + "".join(
                f"{kind}_temp_path {self.folder}/{kind};\n"
                for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
            )
            + http.replace("{folder}", str(self.folder))
            + "\n}\n"
        )
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> RunningNginx:
        self.process = subprocess.Popen(
            [*self._namespace, "nginx", "-p", str(self.folder), "-c", str(self.configuration)],
            stderr=subprocess.DEVNULL,
        )
        wait_for(self._is_up, "nginx to start")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self.process is not None
        self.process.terminate()
        self.process.wait(timeout=60)
        self._folder.cleanup()

    def requests_for(self, text: str) -> int:
        """How many requests its access log has that contain `text`."""
        return sum(text in line for line in self.access_log.read_text().splitlines())

    def _is_up(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"nginx ended: {self.error_log.read_text()}")
        pid_file = self.folder / "pid"
        return pid_file.exists() and bool(pid_file.read_text().strip())
