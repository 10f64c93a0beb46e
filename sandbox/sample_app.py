"""A sample app that really answers HTTP, as uwsgi does on an APPO server.

`python sample_app.py FOLDER NAME`: waits as many seconds as FOLDER/slow says, takes the socket
FOLDER/run/uwsgi.sock over from whoever had it, writes FOLDER/run/uwsgi.pid, and says NAME to
everyone. It needs nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import json
import os
import socketserver
import sys
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    # While an nginx before it is frozen, clients heap up.
    request_queue_size = 4096

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is not worth a word."""


class _Handler(BaseHTTPRequestHandler):
    name = ""

    def _answer(self) -> None:
        received = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        body = json.dumps({"name": self.name, "received": len(received)}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = _answer  # noqa: N815

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        """Says nothing."""


def main(folder: Path, name: str) -> None:
    """Serves for ever."""
    with contextlib.suppress(FileNotFoundError):
        time.sleep(float((folder / "slow").read_text()))
    run = folder / "run"
    run.mkdir(exist_ok=True)
    _Handler.name = name
    # Bound beside the socket and moved over it: no moment without a socket that answers.
    fresh = run / f"{name}.sock"
    fresh.unlink(missing_ok=True)
    with _Server(str(fresh), _Handler) as server:
        fresh.rename(run / "uwsgi.sock")
        (run / "uwsgi.pid").write_text(str(os.getpid()))
        server.serve_forever()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
