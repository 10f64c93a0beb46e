"""The nginx of an APPO server; each app's answer is what the file named after it says."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from sandbox.nginx import Nginx
from sandbox.waiting import free_port, wait_for


class Appo:
    """A context manager; an app without any file has no pid file."""

    def __init__(self) -> None:
        self.port = free_port()
        self.nginx = Nginx(
            f"""
            log_format times "$msec $request";
            server {{
                access_log {{folder}}/access.log;
                access_log {{folder}}/times.log times;
                listen 127.0.0.1:{self.port};
                location ~ ^/o/([^/]+)/healthz$ {{ return 204; }}
                location ~ ^/o/([^/]+) {{
                    if (-f {{folder}}/$1.502) {{ return 502; }}
                    if (!-f {{folder}}/$1.pid) {{ return 404; }}
                    return 200 "served";
                }}
            }}
            """
        )
        self.url = f"http://127.0.0.1:{self.port}/o/{{app_code}}/"

    def __enter__(self) -> Appo:
        self.nginx.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.nginx.__exit__(kind, error, trace)

    def _file(self, app_code: str, kind: str) -> Path:
        return self.nginx.folder / f"{app_code}.{kind}"

    def serves(self, app_code: str) -> None:
        """From now on the app answers."""
        self._file(app_code, "502").unlink(missing_ok=True)
        self._file(app_code, "pid").touch()

    def fails(self, app_code: str) -> None:
        """From now on nginx answers 502 for the app."""
        self._file(app_code, "502").touch()

    def is_asked(self, app_code: str, times: int) -> None:
        """Waits until the app was asked so many times more."""
        text = f"GET /o/{app_code}/ "
        least = self.nginx.requests_for(text) + times
        wait_for(lambda: self.nginx.requests_for(text) >= least, f"{times} probes of {app_code}")

    def asked_at(self, app_code: str) -> list[float]:
        """When the app was asked, in seconds since the epoch."""
        lines = (self.nginx.folder / "times.log").read_text().splitlines()
        return [float(line.split()[0]) for line in lines if f" /o/{app_code}/ " in line]
