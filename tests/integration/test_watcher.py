"""The watcher, on a real engine that dies, freezes and comes back, and on one that misbehaves."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.private_engine import PrivateEngine
from sandbox.proxy import EngineProxy
from sandbox.running_service import Answer, RunningService
from sandbox.waiting import wait_for, wait_until
from tests.conftest import require_engine

Run = Callable[..., Any]
# Full lists are too rare to help.
RARE: dict[str, Any] = {"resync_interval": 300, "stale_after": 600}
QUICK: dict[str, Any] = {"docker_timeout": 0.5, "resync_interval": 1, "stale_after": 2}


@pytest.fixture
def own_engine() -> Iterator[PrivateEngine]:
    """An engine that the test may break."""
    require_engine()
    with PrivateEngine() as engine:
        yield engine


def becomes(service: RunningService, app_code: str, code: int) -> Answer:
    return wait_until(
        lambda: service.check(app_code), lambda a: a.code == code, f"{app_code} to be {code}"
    )


@pytest.fixture(scope="module")
def by_events(engine: PrivateEngine) -> Iterator[RunningService]:
    """A service that full lists do not help."""
    with RunningService(engine.url, **RARE) as service:
        yield service


def test_every_event_is_followed(by_events: RunningService, run: Run, app_code: str) -> None:
    service = by_events
    container = run(f"{app_code}-1")
    becomes(service, app_code, 0)
    container.pause()
    assert "paused" in becomes(service, app_code, 13).json["message"]
    container.unpause()
    becomes(service, app_code, 0)
    container.kill()
    becomes(service, app_code, 13)
    container.start()
    becomes(service, app_code, 0)
    container.stop(timeout=1)
    becomes(service, app_code, 13)
    container.restart(timeout=1)
    becomes(service, app_code, 0)
    container.rename(f"{app_code}new-1")
    becomes(service, app_code, 12)
    becomes(service, f"{app_code}new", 0)
    container.remove(force=True)
    becomes(service, f"{app_code}new", 12)
    run(f"{app_code}-2")
    becomes(service, app_code, 0)


def test_many_containers_that_die_at_once(
    by_events: RunningService, run: Run, app_code: str
) -> None:
    """The engine tells of each death before its own list shows it, by seconds."""
    containers = [run(f"{app_code}{number}-1") for number in range(20)]
    codes = [f"{app_code}{number}" for number in range(20)]
    for each in codes:
        becomes(by_events, each, 0)

    for container in containers:
        container.kill()
    for each in codes:
        becomes(by_events, each, 13)
    for container in containers:
        container.start()
    for each in codes:
        becomes(by_events, each, 0)


def test_a_healthcheck_that_turns(by_events: RunningService, run: Run, app_code: str) -> None:
    service = by_events
    second = 1_000_000_000
    container = run(
        f"{app_code}-1",
        healthcheck={
            "test": ["CMD", "test", "-e", "/tmp/good"],
            "interval": second // 2,
            "timeout": second * 30,
            "retries": 1,
            "start_period": 0,
        },
    )
    assert (
        "unhealthy"
        in wait_until(
            lambda: service.check(app_code).json, lambda a: "unhealthy" in str(a), "unhealthy"
        )["message"]
    )
    container.exec_run(["mkdir", "-p", "/tmp/good"])
    assert "(healthy)" in becomes(service, app_code, 0).json["message"]["status"]
    container.exec_run(["rm", "-r", "/tmp/good"])
    becomes(service, app_code, 13)


def test_in_steady_state_no_check_asks_docker(proxy: EngineProxy, run: Run, app_code: str) -> None:
    run(f"{app_code}-1")
    with RunningService(proxy.url, workers=1, **RARE) as service:
        becomes(service, app_code, 0)
        service.get("/apps")
        wait_for(lambda: len(proxy.requests) == 4, "version, events, version and list")
        seen = list(proxy.requests)

        for _ in range(200):
            assert service.code(app_code) == 0
            service.check("nope")
            service.check("((((")
            service.get("/apps")
            service.get("/apps/health")

        assert proxy.requests == seen
    assert sum("/containers/json" in line for line in seen) == 1
    assert not any("/containers/" in line and "/json?" not in line for line in seen)


def test_an_event_lists_that_container_only(proxy: EngineProxy, run: Run, app_code: str) -> None:
    container = run(f"{app_code}-1")
    with RunningService(proxy.url, workers=1, **RARE) as service:
        becomes(service, app_code, 0)
        wait_for(lambda: len(proxy.requests) == 4, "the first list")
        container.kill()
        becomes(service, app_code, 13)

    lists = [line for line in proxy.requests if "/containers/json" in line]
    assert all(container.id in line for line in lists[1:])
    assert len(lists) > 1


@pytest.mark.parametrize("spoken", ["1.39", "1.40"])
def test_an_older_engine(
    proxy: EngineProxy, run: Run, app_code: str, engine: PrivateEngine, spoken: str
) -> None:
    """The engine speaks the old version of its API when it is asked in it."""
    own = engine.client().version()["ApiVersion"].encode()
    assert len(own) == len(spoken)
    proxy.meddle_lists = lambda data: data.replace(
        b'"ApiVersion":"' + own, b'"ApiVersion":"' + spoken.encode()
    )
    container = run(f"{app_code}-1")
    with RunningService(proxy.url) as service:
        becomes(service, app_code, 0)
        container.kill()
        becomes(service, app_code, 13)

    asked = [line for line in proxy.requests if "/containers/json" in line or "/events" in line]
    assert asked
    assert all(f"/v{spoken}/" in line for line in asked)


# --- An engine that misbehaves.


def test_a_stream_that_breaks_loses_nothing(proxy: EngineProxy, run: Run, app_code: str) -> None:
    container = run(f"{app_code}-1")
    with RunningService(proxy.url, **RARE) as service:
        becomes(service, app_code, 0)
        for _ in range(5):
            proxy.break_all()
            container.kill()
            becomes(service, app_code, 13)
            container.start()
            becomes(service, app_code, 0)


def test_a_stream_that_stalls_loses_nothing(proxy: EngineProxy, run: Run, app_code: str) -> None:
    container = run(f"{app_code}-1")
    with RunningService(proxy.url, resync_interval=1, stale_after=600) as service:
        becomes(service, app_code, 0)
        proxy.meddle_events = lambda _: b""
        container.kill()
        becomes(service, app_code, 13)

        # And it subscribes again, since the list showed what no event had announced.
        subscriptions = sum("/events" in line for line in proxy.requests)
        wait_for(
            lambda: sum("/events" in line for line in proxy.requests) > subscriptions,
            "a new subscription",
        )


@pytest.mark.parametrize(
    "garbage",
    [
        b"garbage that is not even chunked",
        b'10\r\n{"Action":"die"}\n\r\n',
        b"4\r\n\xff\xfe\xfd\n\r\n",
        b"ffffffffffffffff\r\n",
    ],
)
def test_a_stream_that_sends_garbage_loses_nothing(
    proxy: EngineProxy, run: Run, app_code: str, garbage: bytes
) -> None:
    container = run(f"{app_code}-1")
    # Garbage that leaves a reader waiting for a line's end is a stall: full lists are its cure.
    with RunningService(proxy.url, resync_interval=2, stale_after=600) as service:
        becomes(service, app_code, 0)
        proxy.meddle_events = lambda data: data if data.startswith(b"HTTP/1.1") else garbage
        container.kill()
        becomes(service, app_code, 13)
        container.start()
        becomes(service, app_code, 0)
        assert service.get("/ready").status == 200


@pytest.mark.parametrize("answer", [b"nonsense", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[1"])
def test_lists_that_are_garbage_are_a_fault(
    proxy: EngineProxy, run: Run, app_code: str, answer: bytes
) -> None:
    run(f"{app_code}-1")
    with RunningService(proxy.url, **QUICK) as service:
        becomes(service, app_code, 0)
        proxy.meddle_lists = lambda _: answer
        assert service.get("/ready").status in (200, 503)
        assert "Docker at" in becomes(service, app_code, 11).json["message"]

        proxy.meddle_lists = bytes
        becomes(service, app_code, 0)


def test_an_engine_that_drips_is_a_fault_and_is_left(
    proxy: EngineProxy, run: Run, app_code: str
) -> None:
    """Each byte comes within docker-py's own time-out, which would wait for ever."""
    run(f"{app_code}-1")
    with RunningService(proxy.url, **QUICK) as service:
        becomes(service, app_code, 0)
        proxy.drip = 0.1
        assert "does not answer in time" in becomes(service, app_code, 11).json["message"]

        proxy.drip = 0
        becomes(service, app_code, 0)


# --- An engine that is not there, or stops.


def test_no_socket_at_start_and_an_engine_later(tmp_path: Path, engine: PrivateEngine) -> None:
    missing = tmp_path / "docker.sock"
    with RunningService(f"unix://{missing}", workers=1) as service:
        answer = service.check("bk_iam")
        assert (answer.status, answer.code) == (503, 10)
        assert str(missing) in answer.json["message"]
        assert "start dockerd" in answer.json["message"]
        assert service.get("/ready").code == 10
        assert service.get("/apps").code == 10
        assert service.get("/apps/health").code == 10
        assert service.get("/health").status == 200

        missing.symlink_to(engine.socket)
        wait_for(lambda: service.get("/ready").status == 200, "the engine to be found")
        assert service.code("bk_iam") == 12


def test_a_refused_connection(tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with RunningService(f"unix://{path}") as service:
        answer = service.check("bk_iam")

    assert (answer.status, answer.code) == (503, 10)
    assert "connection refused" in answer.json["message"]


def test_a_socket_that_is_not_permitted(proxy: EngineProxy) -> None:
    """Without the capability that lets root pass, and with a socket that lets nobody."""
    no_override = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]
    proxy.socket.chmod(0)
    with RunningService(proxy.url, namespace=no_override) as service:
        answer = service.check("bk_iam")

    assert (answer.status, answer.code) == (503, 10)
    assert "not permitted" in answer.json["message"]
    assert "group" in answer.json["message"]


@pytest.mark.slow
def test_a_dead_engine_leaks_nothing(tmp_path: Path) -> None:
    attempts = 0
    with RunningService(f"unix://{tmp_path}/docker.sock", workers=1, log_level="debug") as service:
        worker = service.workers()[0]
        seen = []
        while attempts < 25:
            attempts = service.log_text().count("] engine: cannot connect to Docker")
            seen.append((attempts, len(os.listdir(f"/proc/{worker}/fd"))))
            service.check("bk_iam")

    # The least, for a check's own connection may still be open. A worker may open something once,
    # at any time; a leak would leave at least ten more.
    early = min(files for attempts, files in seen if attempts < 10)
    late = min(files for attempts, files in seen if attempts >= 20)
    assert late < early + 5
    # The journal tells it once, at the level of a warning.
    assert service.final_log.count("[WARNING] cannot connect to Docker") == 1


def test_a_restart_of_dockerd_refuses_no_healthy_app(own_engine: PrivateEngine) -> None:
    own_engine.run("bk_iam-1709878117")
    with RunningService(own_engine.url, workers=1) as service:
        becomes(service, "bk_iam", 0)
        seen: list[int] = []
        done = threading.Event()

        def keep_asking() -> None:
            while not done.is_set():
                seen.append(service.check("bk_iam").status)

        asking = threading.Thread(target=keep_asking)
        asking.start()
        try:
            own_engine.stop()
            wait_for(lambda: "cannot connect" in service.log_text(), "the loss to be noticed")
            own_engine.start()
            wait_for(
                lambda: "Docker is answering again" in service.log_text(), "the engine to be found"
            )
        finally:
            done.set()
            asking.join()
        assert set(seen) == {200}

        # And the new engine is really being watched.
        own_engine.run("bk_sops-1")
        becomes(service, "bk_sops", 0)


def test_a_frozen_engine(own_engine: PrivateEngine) -> None:
    container = own_engine.run("bk_iam-1709878117")
    with RunningService(own_engine.url, workers=1, **QUICK) as service:
        becomes(service, "bk_iam", 0)
        own_engine.signal(signal.SIGSTOP)
        try:
            answer = becomes(service, "bk_iam", 11)
            assert answer.status == 503
            assert "does not answer in time" in answer.json["message"]
            assert service.get("/apps/health").code == 11
            assert service.get("/ready").code == 11
        finally:
            own_engine.signal(signal.SIGCONT)
        becomes(service, "bk_iam", 0)
        container.kill()
        becomes(service, "bk_iam", 13)


def test_a_dead_and_an_older_live_container(own_engine: PrivateEngine) -> None:
    """A failed deployment leaves the new container behind, dead."""
    own_engine.run("bk_iam-1709878117")
    own_engine.run("bk_iam-1709878999", command="sh -c 'exit 1'")
    with RunningService(own_engine.url) as service:
        answer = wait_until(
            lambda: service.get("/apps/health/bk_iam?all=true"),
            lambda a: [each["state"] for each in a.json["containers"]] == ["exited", "running"],
            "both containers",
        )

    assert answer.status == 200
    assert answer.json["message"]["names"] == "bk_iam-1709878117"


# --- TLS


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def make_certificates(folder: Path) -> None:
    """A certificate authority, and a certificate of it for the engine and one for its client."""
    request = ["req", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    # Python 3.13 takes no authority that does not say what its key is for.
    usage = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    authority = ["-x509", "-keyout", "ca-key.pem", "-out", "ca.pem", "-subj", "/CN=ca", *usage]
    openssl(folder, *request, *authority)
    for name, extensions in (
        ("server", "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth\n"),
        ("client", "extendedKeyUsage=clientAuth\n"),
    ):
        key, csr, certificate = f"{name}-key.pem", f"{name}.csr", f"{name}-cert.pem"
        openssl(folder, *request, "-keyout", key, "-out", csr, "-subj", f"/CN={name}")
        (folder / "extensions").write_text(extensions + "authorityKeyIdentifier=keyid\n")
        sign = ["x509", "-req", "-in", csr, "-CA", "ca.pem", "-CAkey", "ca-key.pem"]
        openssl(
            folder, *sign, "-CAcreateserial", "-days", "2", "-out", certificate,
            "-extfile", "extensions",
        )  # fmt: skip
    (folder / "cert.pem").write_bytes((folder / "client-cert.pem").read_bytes())
    (folder / "key.pem").write_bytes((folder / "client-key.pem").read_bytes())


def test_an_engine_over_tls(tmp_path: Path) -> None:
    require_engine()
    make_certificates(tmp_path)
    options = (
        *("-H", "tcp://127.0.0.1:2376", "--tlsverify", f"--tlscacert={tmp_path}/ca.pem"),
        *(f"--tlscert={tmp_path}/server-cert.pem", f"--tlskey={tmp_path}/server-key.pem"),
    )
    tls = {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(tmp_path)}
    with PrivateEngine(options=options) as engine:
        container = engine.run("bk_iam-1709878117")
        inside = InsideService(
            "tcp://127.0.0.1:2376",
            environment=tls,
            namespace=engine.enter("--net"),
            bind="127.0.0.1:4246",
        )
        with inside:
            assert becomes(inside, "bk_iam", 0).status == 200
            container.kill()
            becomes(inside, "bk_iam", 13)

        # Without the certificates it says what is the matter.
        inside = InsideService(
            "tcp://127.0.0.1:2376",
            environment={**tls, "DOCKER_CERT_PATH": str(tmp_path / "nowhere")},
            namespace=engine.enter("--net"),
            bind="127.0.0.1:4246",
        )
        with inside:
            answer = inside.check("bk_iam")
            assert answer.code == 10
            assert "TLS" in answer.json["message"]


class InsideService(RunningService):
    """A service in a network namespace, asked by a curl in that namespace."""

    def get(self, path: str, **options: Any) -> Answer:  # noqa: ARG002
        url = f"http://{self.host}:{self.port}{self.prefix}{path}"
        done = subprocess.run(
            [*self.namespace, "curl", "-s", "-w", "\n%{http_code}", url],
            capture_output=True,
            check=True,
        )
        body, _, status = done.stdout.rpartition(b"\n")
        return Answer(int(status), {}, body)

    def answers(self) -> bool:
        try:
            return self.get("/health").status == 200
        except subprocess.CalledProcessError:
            return False
