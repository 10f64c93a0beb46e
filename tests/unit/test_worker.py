"""What server/worker.py relies on in gunicorn, whose worker has no documented hooks.

Each test fails when a gunicorn renames a hook, changes its parameters or calls it otherwise.
"""

from __future__ import annotations

import inspect
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent import socket
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.http.errors import LimitRequestLine, ParseException
from gunicorn.sock import create_sockets
from gunicorn.workers.ggevent import GeventWorker

from container_healthcheck.server.connections import end_of_requests
from container_healthcheck.server.worker import Worker
from sandbox.running_service import SOURCE

HOOKS = ["patch", "handle", "handle_request", "handle_exit", "handle_quit", "handle_error"]
PATIENCE = 60.0
REQUEST = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n"
OTHERWISE = "gunicorn no longer does what container_healthcheck/server/worker.py relies on"


class Recorded(Worker):
    """The worker, and what gunicorn calls it with."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.requests: list[tuple[Any, ...]] = []
        self.errors: list[tuple[Any, ...]] = []

    def handle_request(self, *args: Any) -> None:
        self.requests.append(args)
        super().handle_request(*args)

    def handle_error(self, *args: Any) -> None:
        self.errors.append(args)
        super().handle_error(*args)


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    start_response("200 OK", [("Content-Length", str(len(environ["PATH_INFO"])))])
    return [environ["PATH_INFO"].encode()]


def made(kind: type[GeventWorker]) -> Any:
    """A worker of that class, as gunicorn's arbiter makes it."""
    config = Config()
    config.set("keepalive", 75)
    return kind(1, 1, [], None, 30, config, Logger(config))


@pytest.fixture
def worker() -> Iterator[Any]:
    made_one = made(Recorded)
    made_one.wsgi = application
    yield made_one
    made_one.tmp.close()


class Connection:
    """A connection that the worker serves, and its client's end."""

    def __init__(self, worker: Any) -> None:
        self.served, self.client = socket.socketpair()
        self.client.settimeout(PATIENCE)
        self.address = ("127.0.0.1", 1)
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self.name = self._listener.getsockname()
        self._greenlet = gevent.spawn(worker.handle, self._listener, self.served, self.address)

    def ask(self, number: int) -> bytes:
        """Sends a request and returns the answer, which ends in the request's path."""
        self.client.sendall(REQUEST % number)
        answer = b""
        while not answer.endswith(b"/%d" % number):
            more = self.client.recv(4096)
            assert more, f"{answer!r}: {OTHERWISE}"
            answer += more
        return answer

    def ends(self) -> bytes:
        """Sees the connection end and gunicorn's handler with it; returns what came before."""
        answer = b""
        while more := self.client.recv(4096):
            answer += more
        self._greenlet.get(timeout=PATIENCE)
        return answer

    def close(self) -> None:
        self._greenlet.kill()
        for each in (self.client, self.served, self._listener):
            each.close()


@pytest.fixture
def connection(worker: Any) -> Iterator[Connection]:
    connected = Connection(worker)
    yield connected
    connected.close()


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_has_the_parameters_that_are_passed_on(hook: str) -> None:
    theirs = inspect.signature(getattr(GeventWorker, hook)).parameters

    assert list(inspect.signature(getattr(Worker, hook)).parameters) == list(theirs), OTHERWISE


def test_the_listeners_become_sockets_of_gevent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("container_healthcheck.server.worker.patch_worker", lambda: None)
    config = Config()
    config.set("bind", "127.0.0.1:0")
    logger = Logger(config)
    (listener,) = create_sockets(config, logger)
    address = listener.getsockname()
    worker: Any = Worker(1, 1, [listener], None, 30, config, logger)
    worker.tmp.close()

    worker.patch()

    (replaced,) = worker.sockets
    assert isinstance(replaced, socket.socket), OTHERWISE
    assert replaced.getsockname() == address, OTHERWISE
    replaced.close()


def test_nothing_else_of_gunicorn_is_overridden() -> None:
    plain = made(GeventWorker)
    plain.tmp.close()
    own = {"_new", "_idle", *(name for name in vars(Worker) if not name.startswith("__"))}

    assert own & set(dir(plain)) == set(HOOKS), OTHERWISE


def test_each_request_of_a_kept_connection_is_handled_with_its_socket(
    worker: Any, connection: Connection
) -> None:
    for number in (1, 2):
        assert b"\r\nConnection: keep-alive\r\n" in connection.ask(number)

    assert len(worker.requests) == 2, OTHERWISE
    for name, request, client, address in worker.requests:
        assert client is connection.served
        assert (name, address) == (connection.name, connection.address)
        assert request.method == "GET"


def test_a_kept_connection_ends_as_if_its_client_had_closed_it(
    worker: Any, connection: Connection
) -> None:
    connection.ask(1)
    end_of_requests(connection.served)

    assert connection.ends() == b""
    assert worker.errors == []


def test_a_worker_that_is_not_alive_closes_after_the_answer(
    worker: Any, connection: Connection
) -> None:
    connection.ask(1)
    assert worker.alive
    GeventWorker.handle_exit(worker, signal.SIGTERM, None)
    assert not worker.alive, OTHERWISE

    assert b"\r\nConnection: close\r\n" in connection.ask(2)
    assert connection.ends() == b""


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (b"nonsense\r\n\r\n", ParseException),
        (b"GET /" + b"a" * 5000, LimitRequestLine),
    ],
    ids=["nonsense", "too long"],
)
def test_what_is_not_http_is_an_error_to_answer(
    worker: Any, connection: Connection, text: bytes, kind: type[Exception]
) -> None:
    connection.client.sendall(text)
    answer = connection.ends()

    [(_, client, address, error)] = worker.errors
    assert client is connection.served
    assert address == connection.address
    assert isinstance(error, kind)
    assert answer.startswith(b"HTTP/1.1 400 ") and b'"code":2' in answer


# Gunicorn's worker from its start to its loop, in a process of its own: it changes signals.
_START = """
import json, os, signal
from types import SimpleNamespace
from gunicorn.config import Config
from gunicorn.glogging import Logger
from container_healthcheck.server.worker import Worker

class Started(Worker):
    def run(self):
        hooks = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)]
        assert all(hook.__self__ is self for hook in hooks)
        names = [hook.__name__ for hook in hooks]
        print(json.dumps([before, [self.booted, self.wsgi], names]))

def post_worker_init(worker):
    before.extend([worker.booted, worker.wsgi])

before = []
config = Config()
config.set("post_worker_init", post_worker_init)
app = SimpleNamespace(wsgi=lambda: "the application")
worker = Started(1, os.getppid(), [], app, 30, config, Logger(config))
assert not worker.booted and worker.alive
worker.init_process()
"""


def test_a_worker_has_its_application_and_its_signals_before_it_has_booted() -> None:
    said = subprocess.run(
        [sys.executable, "-c", _START], cwd=SOURCE, stdout=subprocess.PIPE, timeout=60, check=True
    ).stdout

    before, at_run, signals = json.loads(said)
    assert before == [False, "the application"], OTHERWISE
    assert at_run == [True, "the application"], OTHERWISE
    assert signals == ["handle_exit", "handle_quit", "handle_quit"], OTHERWISE
