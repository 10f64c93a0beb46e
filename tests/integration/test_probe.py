"""One probe, against a real nginx standing in for the APPO's 8010."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer

import pytest

from container_healthcheck.observers.probe import probe
from sandbox.nginx import Nginx
from sandbox.waiting import free_port, wait_for

GIGABYTE = 1 << 30


class App(BaseHTTPRequestHandler):
    """An app that answers as the path says."""

    def do_GET(self) -> None:
        what = self.path.strip("/").split("/")[-1]
        if what.isdigit():
            body = b"<html><head><title>404 Not Found</title></head><body>own</body></html>"
            self._answer(int(what), {"Content-Length": str(len(body))}, body)
        elif what == "gigabyte":
            self._answer(404, {"Content-Length": str(GIGABYTE)})
            block = bytes(1 << 20)
            for _ in range(1024):
                self.wfile.write(block)
        elif what == "drip":
            self._answer(404, {"Content-Length": str(GIGABYTE)})
            self._drip()
        elif what == "hang":
            self.rfile.read(1)  # until the client hangs up

    def _answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _drip(self) -> None:
        for _ in range(20):
            self.wfile.write(b"x")
            self.wfile.flush()
            time.sleep(0.1)

    def address_string(self) -> str:
        return "nginx"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


class Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True
    request_queue_size = 100
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        # A probe that closes early is what is being tested.
        pass


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Nginx, str]]:
    """An nginx in front of the app, as on an APPO server; its address."""
    folder = tmp_path_factory.mktemp("app")
    for each in (folder, *folder.parents):
        if not (mode := each.stat().st_mode) & 0o001:
            each.chmod(mode | 0o001)
    path = folder / "uwsgi.sock"
    port = free_port()
    configuration = f"""
        proxy_read_timeout 1s; proxy_buffering off;
        upstream dead {{ server unix:{folder}/dead.sock; }}
        server {{
            listen 127.0.0.1:{port};
            location /o/app/ {{ proxy_pass http://unix:{path}; }}
            location /o/dead/ {{ proxy_pass http://dead; }}
            location /o/redirect/ {{ return 302 http://192.0.2.1/login; }}
            location /o/nopid/ {{ return 404; }}
            location /o/nopid-nameless/ {{ server_tokens off; return 404; }}
            location /o/static/ {{ return 200 "static"; }}
            location / {{ return 404; }}
        }}
    """
    with Server(str(path), App) as server:
        path.chmod(0o777)
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        with Nginx(configuration) as running:
            yield running, f"http://127.0.0.1:{port}"
        server.shutdown()
        serving.join()


@pytest.mark.parametrize("status", [200, 204, 301, 302, 400, 401, 403, 404, 405, 418, 500, 501])
def test_an_answer_of_the_app_passes(nginx: tuple[Nginx, str], status: int) -> None:
    assert probe(f"{nginx[1]}/o/app/{status}", 30) is None


@pytest.mark.parametrize(
    ("status", "said"),
    [(502, "502 Bad Gateway"), (503, "503 Service Unavailable"), (504, "504 Gateway Time-out")],
)
def test_a_gateway_error_fails(nginx: tuple[Nginx, str], status: int, said: str) -> None:
    url = f"{nginx[1]}/o/app/{status}"

    assert probe(url, 30) == f"{said} from {url}"


def test_a_dead_app_behind_nginx_fails(nginx: tuple[Nginx, str]) -> None:
    assert str(probe(f"{nginx[1]}/o/dead/", 30)).startswith("502 Bad Gateway")


def test_an_app_that_hangs_behind_nginx_fails(nginx: tuple[Nginx, str]) -> None:
    assert str(probe(f"{nginx[1]}/o/app/hang", 30)).startswith("504 Gateway Time-out")


@pytest.mark.parametrize("path", ["/o/nopid/", "/o/nopid-nameless/", "/anything"])
def test_nginxs_own_404_fails(nginx: tuple[Nginx, str], path: str) -> None:
    assert "nginx's own 404 page" in str(probe(nginx[1] + path, 30))


def test_a_redirect_is_not_followed(nginx: tuple[Nginx, str]) -> None:
    assert probe(f"{nginx[1]}/o/redirect/", 30) is None


def test_nothing_listens() -> None:
    url = f"http://127.0.0.1:{free_port()}/o/app/"

    assert probe(url, 30) == f"Connection refused from {url}"


def test_a_time_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/o/app/"
        assert probe(url, 0.2) == f"no answer within 0.2 s from {url}"


@pytest.mark.parametrize("what", ["gigabyte", "drip"])
def test_an_endless_body_is_not_read(nginx: tuple[Nginx, str], what: str) -> None:
    before = open_sockets()

    seen = probe(f"{nginx[1]}/o/app/{what}", 0.5)

    assert seen is None, nginx[0].error_log.read_text()[-2000:]
    wait_for(lambda: open_sockets() <= before, "every socket to be closed")


def open_sockets() -> int:
    found = 0
    for each in Path("/proc/self/fd").iterdir():
        # Another thread may close what was listed a moment ago.
        with contextlib.suppress(OSError):
            found += "socket:" in str(each.readlink())
    return found


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "connection closed without an answer"),
        (b"SSH-2.0-OpenSSH\r\n", "an answer that is not HTTP"),
        (b"HTTP/1.1 200", "an answer that is not HTTP"),
        (b"HTTP/1.1 abc\r\n\r\n", "an answer that is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 65536, "an answer that is not HTTP"),
        (b"HTTP/1.1 502\r\n\r\n", "502 Bad Gateway"),
    ],
)
def test_odd_answers_fail(answer: bytes, said: str) -> None:
    url = f"http://127.0.0.1:{one_answer(answer)}/"

    assert probe(url, 30) == f"{said} from {url}"


@pytest.mark.parametrize("answer", [b"HTTP/1.0 200 OK\n\n", b"HTTP/1.1 404 Not Found\r\n\r\n"])
def test_short_answers_pass(answer: bytes) -> None:
    assert probe(f"http://127.0.0.1:{one_answer(answer)}/?x=1", 30) is None


def one_answer(answer: bytes) -> int:
    """The port of a server that sends this to its first client and closes."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with server, server.accept()[0] as client:
            client.recv(65536)
            client.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    port: int = server.getsockname()[1]
    return port


def test_a_header_byte_by_byte_does_not_move_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = threading.Event()

        def serve() -> None:
            client, _ = server.accept()
            with client:
                while not done.is_set():
                    try:
                        client.sendall(b"H")
                    except OSError:
                        return
                    time.sleep(0.05)

        serving = threading.Thread(target=serve)
        serving.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        assert probe(url, 0.5) == f"no answer within 0.5 s from {url}"
        done.set()
        serving.join()
    wait_for(lambda: not serving.is_alive(), "the server to end")
