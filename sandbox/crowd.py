"""Clients that wait for a change of the verdicts."""

from __future__ import annotations

import selectors
import socket
import time

from sandbox.running_service import RunningService


class Crowd:
    """Many clients that wait at once, for a change from `etag`, each on a connection of its own.

    `seconds` is how long they are ready to wait. `heard_at` are the moments, on the monotonic
    clock, at which answers began to come.
    """

    def __init__(self, service: RunningService, size: int, etag: str, seconds: int) -> None:
        request = (
            f"GET {service.prefix}/apps/health HTTP/1.1\r\nHost: x\r\nIf-None-Match: {etag}\r\n"
            f"Prefer: wait={seconds}\r\nConnection: close\r\n\r\n"
        )
        self._service = service
        self.answers: dict[socket.socket, bytes] = {}
        self.heard_at: list[float] = []
        self._selector = selectors.DefaultSelector()
        for _ in range(size):
            connection = socket.create_connection((service.host, service.port), timeout=60)
            connection.sendall(request.encode())
            self._selector.register(connection, selectors.EVENT_READ)
            self.answers[connection] = b""

    def is_settled(self) -> bool:
        """True once the service has come to answer others, and none of these has an answer."""
        return self._service.get("/health").status == 200 and not self._selector.select(timeout=0)

    def listen(self) -> list[bytes]:
        """Every client's answer."""
        while self._selector.get_map():
            ready = self._selector.select(timeout=60)
            assert ready, "a client was forgotten"
            for key, _ in ready:
                connection = key.fileobj
                assert isinstance(connection, socket.socket)
                data = connection.recv(65536)
                if not self.answers[connection]:
                    self.heard_at.append(time.monotonic())
                self.answers[connection] += data
                if not data:
                    self._selector.unregister(connection)
                    connection.close()
        self._selector.close()
        return list(self.answers.values())
