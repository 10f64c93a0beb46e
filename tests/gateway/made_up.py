"""Made-up APPO servers, which answer whatever a test wants: for what real ones never say."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

from sandbox.gateway import APPO_PORT

LIST_PATH = "/container-healthcheck/apps/health"


def envelope(message: object, code: int = 0) -> bytes:
    """The service's JSON."""
    status = "error" if code else "ok"
    return json.dumps({"code": code, "status": status, "message": message}).encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """A gateway that hung up is what the tests expect."""


class MadeUp:
    """A server on port 8010 of `address`; a context manager.

    `say` answers for the service; it gets the connection's handler, which it may write anything to.
    All other paths answer 200 with the address, once `may_answer` is set. What was asked is
    counted.
    """

    def __init__(self, address: str, say: Callable[[Handler], None]) -> None:
        self.address = address
        self.name = f"{address}:{APPO_PORT}"
        self.say = say
        self.lists = 0
        self.asked = 0
        self.at_once = 0
        self.most_at_once = 0
        self.status = 200
        self.headers: Mapping[str, str] = {}
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.connections: set[object] = set()
        self.lock = threading.Lock()
        handler = type("BoundHandler", (Handler,), {"made_up": self})
        self._server = _Server((address, APPO_PORT), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> MadeUp:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.may_answer.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    made_up: MadeUp
    asking = False

    def do_GET(self) -> None:
        """Answers for the service, or for an app."""
        made_up = self.made_up
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if self.path.startswith(LIST_PATH):
            self._say()
            return
        with made_up.lock:
            made_up.asked += 1
        made_up.connections.add(self.client_address)
        made_up.headers = dict(self.headers)
        made_up.may_answer.wait()
        self.answer(made_up.address.encode(), made_up.status)

    do_POST = do_GET  # noqa: N815

    def _say(self) -> None:
        made_up = self.made_up
        self.asking = True
        with made_up.lock:
            made_up.lists += 1
            made_up.at_once += 1
            made_up.most_at_once = max(made_up.most_at_once, made_up.at_once)
        try:
            made_up.say(self)
        finally:
            self.settle()

    def settle(self) -> None:
        """Counts the question as answered; before the answer is sent, not a moment after it."""
        with self.made_up.lock:
            self.made_up.at_once -= self.asking
        self.asking = False

    def answer(
        self, body: bytes, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        """One whole answer."""
        self.settle()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def raw(self, data: bytes) -> None:
        """These bytes, and the end of the connection."""
        self.wfile.write(data)
        self.close_connection = True

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        """Says nothing."""


class Verdicts:
    """Answers as the service does: ETag, `If-None-Match`, `Prefer: wait`."""

    def __init__(self, codes: Mapping[str, int]) -> None:
        self._codes = dict(codes)
        self._changed = threading.Condition()

    def change(self, codes: Mapping[str, int]) -> None:
        """Other verdicts from now on."""
        with self._changed:
            self._codes = dict(codes)
            self._changed.notify_all()

    def __call__(self, handler: Handler) -> None:
        wait = float(handler.headers.get("Prefer", "wait=0").partition("=")[2])
        end = time.monotonic() + wait
        with self._changed:
            while (left := end - time.monotonic()) > 0 and self._known(handler):
                self._changed.wait(left)
            known, etag, body = self._known(handler), self._etag(), envelope(self._codes)
        if known:
            handler.settle()
            handler.send_response(304)
            handler.send_header("ETag", etag)
            handler.end_headers()
        else:
            handler.answer(body, headers={"ETag": etag})

    def _etag(self) -> str:
        return f'"{hash(tuple(sorted(self._codes.items()))):x}"'

    def _known(self, handler: Handler) -> bool:
        return handler.headers.get("If-None-Match") == self._etag()
