"""The gunicorn worker: gevent's, with the monitor beside it and protocol errors in JSON."""

from __future__ import annotations

import socket
from types import FrameType
from typing import Any

import gevent
from gevent.socket import socket as gevent_socket
from gunicorn.http.errors import LimitRequestLine, ParseException
from gunicorn.workers.ggevent import GeventWorker

from container_healthcheck.model import formatter
from container_healthcheck.model.verdict import Code
from container_healthcheck.server.connections import end_of_requests
from container_healthcheck.server.patching import patch_worker
from container_healthcheck.server.wsgi import MONITOR

# How long a client that has connected has for its first request when the worker stops, in seconds;
# gunicorn takes as long to see that it is to stop.
_FIRST_REQUEST = 1.0


class Worker(GeventWorker):  # type: ignore[misc]
    """A gevent worker of this service.

    Gunicorn would wait for idle keep-alive connections when it stops, and refuse new ones then:
    they are ended at once, so that a restart is short. Not those that are yet to ask for the first
    time: that request is on its way, and its client has no reason to ask again.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._new: set[socket.socket] = set()
        self._idle: set[socket.socket] = set()

    def patch(self) -> None:
        """Replaces what the master has left, without gunicorn's `patch_all` of what is done."""
        patch_worker()
        self.sockets: list[Any] = [
            gevent_socket(each.FAMILY, socket.SOCK_STREAM, fileno=each.sock.detach())
            for each in self.sockets
        ]

    def handle(self, listener: Any, client: socket.socket, addr: Any) -> None:
        """Serves one connection."""
        self._new.add(client)
        try:
            super().handle(listener, client, addr)
        finally:
            self._new.discard(client)
            self._idle.discard(client)

    def handle_request(self, listener_name: Any, req: Any, sock: socket.socket, addr: Any) -> None:
        """Answers one request of a connection."""
        self._new.discard(sock)
        self._idle.discard(sock)
        super().handle_request(listener_name, req, sock, addr)
        self._idle.add(sock)
        # A client whose next request is there already would keep all others waiting.
        gevent.sleep(0)
        if not self.alive:
            end_of_requests(sock)

    def start_monitor(self) -> None:
        """Starts the monitor, once the application is loaded."""
        self.wsgi.extensions[MONITOR].start()

    def end_monitor(self) -> None:
        """Ends the monitor, and the connections of clients that ask for nothing."""
        if self.booted:
            self.wsgi.extensions[MONITOR].end()
        self._end_idle()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stops gracefully: no client is kept waiting for a change."""
        super().handle_exit(sig, frame)
        # A signal handler must not wait for the board's lock.
        gevent.spawn(self._stop)

    def _stop(self) -> None:
        if self.booted:
            self.wsgi.extensions[MONITOR].stop()
        self._end_idle()
        connected = list(self._new)
        gevent.sleep(_FIRST_REQUEST)
        for client in self._new.intersection(connected):
            end_of_requests(client)

    def _end_idle(self) -> None:
        for client in list(self._idle):
            end_of_requests(client)

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
