"""The gunicorn worker: gevent's, with the observers beside it and its own protocol errors in JSON.

Gunicorn's master imports this before it forks, so it must not import the application.
"""

from __future__ import annotations

import _socket
import fcntl
import os
import socket
import tempfile
from contextlib import AbstractContextManager
from types import FrameType
from typing import IO, Any

import gevent
from gunicorn.http.errors import LimitRequestLine, ParseException
from gunicorn.workers.ggevent import GeventWorker

from container_healthcheck.model import formatter
from container_healthcheck.model.verdict import Code

EXTENSION = "container_healthcheck"
"""Where the application keeps its Service, among its Flask extensions."""

# Shared by all workers of a master. A POSIX lock belongs to one process, and goes when that ends.
_lead_file: IO[bytes] | None = None


def prepare_lead() -> None:
    """Lets the workers agree on a lead; for the master, before it forks."""
    global _lead_file
    _lead_file = tempfile.TemporaryFile()  # noqa: SIM115


def is_lead() -> bool:
    """True in one worker of all, until it ends; then in another."""
    if _lead_file is None:
        return True
    try:
        fcntl.lockf(_lead_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def give_up_lead() -> None:
    """Leaves the lead to another worker."""
    if _lead_file is not None:
        fcntl.lockf(_lead_file, fcntl.LOCK_UN)


def bounded(seconds: float) -> AbstractContextManager[object]:
    """Raises TimeoutError inside its block after so many seconds, whatever the block waits for."""
    return gevent.Timeout(seconds, TimeoutError(f"not done within {seconds:g} s"))


class Worker(GeventWorker):  # type: ignore[misc]
    """A gevent worker of this service.

    Gunicorn would wait for idle keep-alive connections when it stops, and refuse new ones then:
    they are ended at once, so that a restart is short.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._idle: set[socket.socket] = set()

    def handle(self, listener: Any, client: socket.socket, addr: Any) -> None:
        """Serves one connection."""
        self._idle.add(client)
        try:
            super().handle(listener, client, addr)
        finally:
            self._idle.discard(client)

    def handle_request(self, listener_name: Any, req: Any, sock: socket.socket, addr: Any) -> None:
        """Answers one request of a connection."""
        self._idle.discard(sock)
        super().handle_request(listener_name, req, sock, addr)
        self._idle.add(sock)
        # A client whose next request is there already would keep all others waiting.
        gevent.sleep(0)
        if not self.alive:
            _end_of_requests(sock)

    def start_service(self) -> None:
        """Starts the observers, once the application is loaded."""
        self.wsgi.extensions[EXTENSION].start()

    def stop_service(self) -> None:
        """Ends the observers and answers the clients that wait for a change."""
        if self.booted:
            self.wsgi.extensions[EXTENSION].stop()
        give_up_lead()
        for client in list(self._idle):
            _end_of_requests(client)

    def notify(self) -> None:
        """Tells the master, once a second, that it lives."""
        super().notify()
        # So the lead passes to a worker that knows the state before, sooner than a new one starts.
        if self.booted and self.alive:
            is_lead()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stops gracefully: nobody is kept waiting for a change."""
        super().handle_exit(sig, frame)
        # A signal handler must not wait for the board's lock.
        gevent.spawn(self.stop_service)

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:
        """Stops like that too, on Ctrl-C: gevent would print a trace of gunicorn's own way."""
        self.handle_exit(sig, frame)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answers a request that is not HTTP in JSON."""
        if not isinstance(exc, ParseException):
            super().handle_error(req, client, addr, exc)
            return
        self.log.debug("not a proper request from %s: %s", addr, exc)
        if isinstance(exc, LimitRequestLine):
            code, text = Code.BAD_APP_CODE, "the request line is too long for any app code"
        else:
            code, text = Code.BAD_REQUEST, f"not a proper HTTP request: {exc}"
        body = formatter.text_body(code, text)
        head = (
            "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: application/json\r\n"
            f"Cache-Control: no-store\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        client.sendall(head.encode("ascii") + body)


def _end_of_requests(client: socket.socket) -> None:
    """Makes gunicorn see the end of a connection, as if its client had closed it."""
    try:
        # Not gevent's own shutdown, which is an error for whoever waits for the socket.
        raw = _socket.socket(fileno=os.dup(client.fileno()))
        try:
            raw.shutdown(socket.SHUT_RD)
        finally:
            raw.close()
    except OSError:
        pass
