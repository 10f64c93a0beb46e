"""The HTTP answers, from a real engine through a real gunicorn."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from sandbox.private_engine import PrivateEngine
from sandbox.running_service import Answer, RunningService, ask, ask_on
from sandbox.waiting import wait_until

Run = Callable[..., Any]
BASE = "/container-healthcheck"
PATHS = ["/health", "/ready", "/apps", "/apps/health", "/apps/health/nope"]


def healthy(service: RunningService, app_code: str) -> Answer:
    return wait_until(lambda: service.check(app_code), lambda a: a.status == 200, "health")


def test_a_check_has_the_go_tools_shape(service: RunningService, run: Run, app_code: str) -> None:
    container = run(f"{app_code}-1709878117")
    attributes = container.attrs

    answer = healthy(service, app_code)

    assert list(answer.json) == ["code", "status", "message"]
    message = answer.json["message"]
    assert list(message.items())[:6] == [
        ("command", "sh /build/builder"),
        ("container_id", attributes["Id"][:10]),
        ("created", message["created"]),
        ("image", "python36e:1.1"),
        ("names", f"{app_code}-1709878117"),
        ("port", []),
    ]
    assert list(message)[6:] == ["state", "status"]
    assert isinstance(message["created"], int)
    assert answer.body == json.dumps(answer.json, separators=(",", ":")).encode()
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"


def test_health_and_ready(service: RunningService) -> None:
    assert service.get("/health").body == b'{"code":0,"status":"ok","message":"i\'m healthy"}'
    assert service.get("/ready").body == b'{"code":0,"status":"ok","message":"ready"}'


def test_all_shows_stopped_containers_too(service: RunningService, run: Run, app_code: str) -> None:
    run(f"{app_code}-1")
    run(f"{app_code}-2", command="true")
    answer = wait_until(
        lambda: service.get(f"/apps/health/{app_code}?all=true"),
        lambda a: [each["state"] for each in a.json.get("containers")] == ["exited", "running"],
        "both containers",
    )

    assert list(answer.json) == ["code", "status", "message", "containers"]
    assert answer.json["message"]["names"] == f"{app_code}-1"
    assert "containers" not in service.get(f"/apps/health/{app_code}?all=false").json


def test_an_unhealthy_check_says_why(service: RunningService, run: Run, app_code: str) -> None:
    run(f"{app_code}-1", command="sh -c 'exit 7'")

    said = f"{app_code}-1 is exited: Exited (7)"

    answer = wait_until(lambda: service.check(app_code), lambda a: said in str(a.json), said)

    assert (answer.status, answer.code) == (503, 13)
    assert answer.json["message"].startswith(said)


def test_no_container(service: RunningService) -> None:
    answer = service.check("nope")

    assert answer.status == 503
    assert (
        answer.body == b'{"code":12,"status":"error","message":"no container of nope on this host"}'
    )


def test_neighbours_with_like_names_do_not_answer(
    service: RunningService, run: Run, app_code: str
) -> None:
    for name in (f"{app_code}_app-1", f"{app_code}-test-1709878117", f"x{app_code}-1"):
        run(name)
    healthy(service, f"{app_code}_app")
    healthy(service, f"{app_code}-test")
    healthy(service, f"x{app_code}")

    assert service.code(app_code) == 12


def test_a_java_app(service: RunningService, run: Run, app_code: str) -> None:
    run(f"{app_code}1709878117")

    assert healthy(service, app_code).json["message"]["names"] == f"{app_code}1709878117"


def test_all_codes_and_their_etag(service: RunningService, run: Run, app_code: str) -> None:
    before = service.get("/apps/health")
    run(f"{app_code}-1")
    run(f"{app_code}dead-1", command="true")
    answer = wait_until(
        lambda: service.get("/apps/health"),
        lambda a: a.json["message"].get(f"{app_code}dead") == 13,
        "the codes",
    )

    assert answer.json["message"][app_code] == 0
    assert answer.headers["ETag"] != before.headers["ETag"]


def test_the_overview(service: RunningService, run: Run, app_code: str) -> None:
    run(f"{app_code}-1")
    healthy(service, app_code)

    def own(answer: Answer) -> list[dict[str, Any]]:
        apps = answer.json["message"]
        # A container that was made a moment ago is not running yet, in one worker or the other.
        return [app for app in apps if (app["app_code"], app["code"]) == (app_code, 0)]

    overview = wait_until(lambda: service.get("/apps"), own, "the app in the overview")

    app = own(overview)[0]
    keys = ["app_code", "code", "status", "message", "containers", "since", "probe"]
    assert list(app) == keys
    assert app["containers"] == [app["message"]]


def in_one_moment(
    service: RunningService, path: str, other: str, **options: Any
) -> tuple[Answer, Answer]:
    """The answers to a path and to another one, from one worker, while nothing happened.

    The containers of the tests before may still be leaving.
    """
    with contextlib.closing(
        http.client.HTTPConnection(service.host, service.port, timeout=60)
    ) as connection:

        def three() -> tuple[Answer, Answer, Answer]:
            before = ask_on(connection, BASE + path)
            between = ask_on(connection, BASE + other, **options)
            return before, between, ask_on(connection, BASE + path)

        answer, between, _ = wait_until(
            three, lambda asked: asked[0].body == asked[2].body, "a moment in which nothing happens"
        )
    return answer, between


@pytest.mark.parametrize("path", PATHS)
def test_head_answers_as_get_does_without_the_body(service: RunningService, path: str) -> None:
    get, head = in_one_moment(service, path, path, method="HEAD")

    assert (head.status, head.body) == (get.status, b"")
    assert head.headers["Content-Type"] == get.headers["Content-Type"]
    assert head.headers.get("ETag") == get.headers.get("ETag")


@pytest.mark.parametrize("path", PATHS)
def test_a_trailing_slash_makes_no_difference(service: RunningService, path: str) -> None:
    without, with_slash = in_one_moment(service, path, path + "/")

    assert with_slash.body == without.body


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        # Not an app code.
        ("/apps/health/a%20b", 400, 20),
        ("/apps/health/(", 400, 20),
        ("/apps/health/.*", 400, 20),
        ("/apps/health/%2e%2e", 400, 20),
        ("/apps/health/..", 400, 20),
        ("/apps/health/%00", 400, 20),
        ("/apps/health/a%00b", 400, 20),
        ("/apps/health/%ff%fe", 400, 20),
        ("/apps/health/%E5%BA%94%E7%94%A8", 400, 20),
        ("/apps/health/a%0d%0aX-Injected:1", 400, 20),
        ("/apps/health/%", 400, 20),
        ("/apps/health/" + "a" * 129, 400, 20),
        ("/apps/health/" + "a" * 7000, 400, 20),
        ("/apps/health/" + "a" * 20_000, 400, 20),
        ("/apps/health/-a", 400, 20),
        ("/apps/health/<script>", 400, 20),
        # Another path.
        ("/apps/health/a/b", 404, 21),
        ("/apps/health/a%2Fb", 404, 21),
        ("/apps/health/../health", 404, 21),
        ("/apps//health", 404, 21),
        ("//health", 404, 21),
        ("/nope", 404, 21),
        ("/apps/healthy", 404, 21),
        ("/static/x", 404, 21),
    ],
)
def test_bad_paths_get_json(service: RunningService, path: str, status: int, code: int) -> None:
    answer = service.get(path)

    assert (answer.status, answer.code) == (status, code)
    assert list(answer.json) == ["code", "status", "message"]
    assert answer.json["status"] == "error"
    assert len(answer.body) < 600
    assert "Traceback" not in answer.body.decode()
    assert "X-Injected" not in answer.headers


@pytest.mark.parametrize("path", ["", "/"])
def test_the_prefix_itself_is_the_page(service: RunningService, path: str) -> None:
    answer = service.get(path)

    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"


def test_a_path_outside_the_prefix_gets_json(service: RunningService) -> None:
    answer = ask(service.port, "/apps/health/bk_iam")

    assert (answer.status, answer.code) == (404, 21)
    assert answer.json["message"] == (
        f"no such path: '/apps/health/bk_iam': the paths here begin with {service.prefix}/"
    )


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
@pytest.mark.parametrize("path", ["/health", "/apps/health", "/apps/health/nope"])
def test_other_methods_are_not_allowed(service: RunningService, method: str, path: str) -> None:
    answer = service.get(path, method=method)

    assert (answer.status, answer.code) == (405, 21)
    assert answer.headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"GET /x HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 500 + b"\r\n",
    ],
)
def test_what_is_not_http_gets_json(service: RunningService, request_bytes: bytes) -> None:
    with socket.create_connection((service.host, service.port), timeout=60) as connection:
        connection.sendall(request_bytes)
        answer = connection.makefile("rb").read()

    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request")
    assert json.loads(body)["code"] == 21


@pytest.mark.parametrize(("setting", "base"), [("/", ""), ("/x", "/x"), ("/a/b-c/", "/a/b-c")])
def test_any_prefix(engine: PrivateEngine, setting: str, base: str) -> None:
    service = RunningService(engine.url, prefix=setting)
    service.prefix = base
    with service:
        assert service.get("/health").status == 200
        assert service.get("/apps/health/nope").code == 12
        assert service.get("/apps/health/").code == 0
        assert ask(service.port, BASE + "/health").status == 404


def test_a_client_that_never_pauses_leaves_room_for_others(engine: PrivateEngine) -> None:
    """The observers in the same worker have their turn in the same way."""
    requests, ok = 20_000, b"HTTP/1.1 200"
    text = b"GET /container-healthcheck/health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with (
        RunningService(engine.url, workers=1) as service,
        socket.create_connection((service.host, service.port), timeout=60) as greedy,
    ):
        sender = threading.Thread(target=greedy.sendall, args=(requests * text,))
        sender.start()
        answers = bytearray(greedy.recv(65536))
        assert service.get("/health").status == 200
        greedy.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while data := greedy.recv(65536):
                answers += data
        assert answers.count(ok) < requests / 2
        greedy.settimeout(60)
        while answers.count(ok) < requests and (data := greedy.recv(65536)):
            answers += data
        sender.join()
    assert answers.count(ok) == requests
