"""A Unix-socket proxy in front of an engine: counts what is asked, and can make it misbehave."""

from __future__ import annotations

import contextlib
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

CHUNK = 65536
Meddle = Callable[[bytes], bytes]


class EngineProxy:
    """A context manager; `url` is where it listens.

    `requests` are the request lines seen so far. `meddle_events` and `meddle_lists` change what the
    engine sends on a subscription, and for anything else; they may raise ConnectionError to break
    the connection. `drip` makes every answer but a subscription's come byte by byte, that many
    seconds apart. While `lists_flow` is cleared, no list is passed on to the engine.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self._folder = tempfile.TemporaryDirectory(prefix="chc-proxy-")
        self.socket = Path(self._folder.name) / "docker.sock"
        self.url = f"unix://{self.socket}"
        self.requests: list[str] = []
        self.meddle_events: Meddle = bytes
        self.meddle_lists: Meddle = bytes
        self.drip = 0.0
        self.lists_flow = threading.Event()
        self.lists_flow.set()
        self._open: set[socket.socket] = set()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.socket))
        self._listener.listen(100)
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> EngineProxy:
        self._spawn(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.unlink()
        self.lists_flow.set()
        # Closing a listener does not wake the thread that waits in it.
        self._listener.shutdown(socket.SHUT_RDWR)
        self.break_all()
        for thread in self._threads:
            thread.join(60)
        self._listener.close()
        self._folder.cleanup()

    def break_all(self) -> None:
        """Breaks every connection there is."""
        for each in list(self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _spawn(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            engine = socket.socket(socket.AF_UNIX)
            try:
                engine.connect(str(self._target))
            except OSError:
                client.close()
                engine.close()
                continue
            self._open |= {client, engine}
            subscribed = threading.Event()
            self._spawn(self._to_engine, client, engine, subscribed)
            self._spawn(self._to_client, client, engine, subscribed)

    def _to_engine(
        self, client: socket.socket, engine: socket.socket, subscribed: threading.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(CHUNK):
                line = data.partition(b"\r\n")[0].decode("latin-1")
                self.requests.append(line)
                if "/events" in line:
                    subscribed.set()
                if "/containers/json" in line:
                    self.lists_flow.wait()
                engine.sendall(data)
        self._end(client, engine)

    def _to_client(
        self, client: socket.socket, engine: socket.socket, subscribed: threading.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while data := engine.recv(CHUNK):
                if subscribed.is_set():
                    client.sendall(self.meddle_events(data))
                else:
                    self._send(client, self.meddle_lists(data))
        self._end(client, engine)
        client.close()
        engine.close()
        self._open -= {client, engine}

    def _send(self, client: socket.socket, data: bytes) -> None:
        if not self.drip:
            client.sendall(data)
            return
        for position in range(len(data)):
            client.sendall(data[position : position + 1])
            time.sleep(self.drip)

    def _end(self, *connections: socket.socket) -> None:
        for each in connections:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
