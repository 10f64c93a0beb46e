"""The command line, as its users type it."""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest

from container_healthcheck import __version__
from container_healthcheck.cli.main import main
from sandbox.private_engine import PrivateEngine
from sandbox.running_service import PREFIX, SOURCE, RunningService, ask, ask_on
from sandbox.waiting import free_port, wait_for, wait_until

Run = Callable[..., Any]
# The line that the Go tool's RPM puts into /etc/sysconfig/container-healthcheck.
GO_TOOL_OPTS = (
    " -level info -prefix /container-healthcheck -port {port} -ngx-port 8010 -logpath {folder}"
)


@dataclass(frozen=True)
class Done:
    """What a run of the program has left."""

    returncode: int
    stdout: str
    stderr: str


def environment_of(settings: Mapping[str, object]) -> dict[str, str]:
    return {PREFIX + name.upper(): str(value) for name, value in settings.items()}


def command(
    *arguments: str, environment: Mapping[str, str] | None = None, **settings: object
) -> Done:
    """Calls `container-healthcheck` with these settings, in this process."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(stdout), redirect_stderr(stderr):
        for name, value in {**environment_of(settings), **(environment or {})}.items():
            patch.setenv(name, value)
        patch.setattr(os, "execve", never_called)
        try:
            code = main(arguments)
        except SystemExit as end:
            # As argparse ends the program.
            code = int(end.code or 0)
    return Done(code, stdout.getvalue(), stderr.getvalue())


def never_called(*_: object) -> NoReturn:
    raise AssertionError("the service would have started, in place of the tests")


def program(
    *arguments: str, environment: Mapping[str, str] | None = None, **settings: object
) -> Done:
    """Starts `container-healthcheck` with these settings, and waits for its end.

    When it asks Docker itself, docker-py leaves the closing of a socket to the end of the process.
    """
    done = subprocess.run(
        [sys.executable, "-m", "container_healthcheck", *arguments],
        env={**os.environ, **environment_of(settings), **(environment or {})},
        cwd=SOURCE,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def asking(service: RunningService, *arguments: str) -> Done:
    """Calls `container-healthcheck` beside a service, with its settings."""
    return command(*arguments, environment=service.environment)


def becomes(service: RunningService, app_code: str, code: int) -> None:
    service.settle(app_code, code)


@pytest.fixture(scope="module")
def whole_own(engine: PrivateEngine) -> Iterator[RunningService]:
    """A service that sees names that begin with `own.`."""
    with RunningService(engine.url, workers=2, name_pattern=r"own.{app_code}-\d+") as service:
        yield service


@pytest.fixture
def own(whole_own: RunningService) -> Iterator[RunningService]:
    """The same, without any app and mark, which the test may make."""
    yield whole_own
    for mark in Path(whole_own.folder.name, "drains").glob("*"):
        mark.unlink()
    for app_code in whole_own.get("/apps/health").json["message"]:
        whole_own.settle(app_code, 12)


# --- serve


@pytest.mark.parametrize("dash", ["-", "--"])
@pytest.mark.parametrize("subcommand", [["serve"], []])
def test_the_go_tools_line_works(
    engine: PrivateEngine, tmp_path: Path, dash: str, subcommand: list[str]
) -> None:
    port = free_port()
    options = GO_TOOL_OPTS.format(port=port, folder=tmp_path / "logs").split()
    flags = [dash + each.removeprefix("-") if each.startswith("-") else each for each in options]
    process = subprocess.Popen(
        [sys.executable, "-m", "container_healthcheck", *subcommand, *flags],
        env={**os.environ, "DOCKER_HOST": engine.url, PREFIX + "STATE_DIR": str(tmp_path)},
        cwd=SOURCE,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: is_up(port), "the service")
        answer = ask(port, "/container-healthcheck/apps/health/nope")
        assert answer.code == 12
        log = tmp_path / "logs" / "container-healthcheck.log"
        assert "watching" in wait_until(log.read_text, lambda text: "watching" in text, "the log")
        assert f"Listening at: http://127.0.0.1:{port}" in log.read_text()
        assert not (tmp_path / "logs" / "access.log").exists()
    finally:
        process.terminate()
        assert process.wait(timeout=60) == 0


def is_up(port: int) -> bool:
    try:
        return ask(port, "/container-healthcheck/health").status == 200
    except OSError:
        return False


def test_flags_win_over_the_environment(engine: PrivateEngine) -> None:
    port = free_port()
    with RunningService(
        engine.url,
        bind=f"0.0.0.0:{port}",
        prefix="/wrong",
        workers=1,
        flags=["--prefix", "/container-healthcheck", f"-port={port}", "-workers", "2"],
    ) as service:
        service.host = "127.0.0.1"
        assert service.get("/health").status == 200
        wait_for(lambda: len(service.workers()) == 2, "both workers")
        assert f"http://0.0.0.0:{port}" in service.log_text()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["-port", "0"], "-port/--port: '0' is not allowed: allowed is a whole number from 1 to"),
        (["-ngx-port", "x"], "-ngx-port/--ngx-port: 'x' is not allowed"),
        (["-level", "loud"], "-level/--level: 'loud' is not allowed"),
        (["-prefix", "x"], "-prefix/--prefix: 'x' is not allowed"),
        (["-logpath", "logs"], "-logpath/--logpath: 'logs' is not allowed"),
        (["-bind", "x", "-port", "1"], "-bind/--bind: 'x' is not allowed"),
        (["-name-pattern", "x"], "-name-pattern/--name-pattern: 'x' is not allowed"),
    ],
)
def test_bad_flags_stop_the_start_with_one_line(flags: list[str], said: str) -> None:
    done = command("serve", *flags)

    assert done.returncode == 2
    assert done.stderr.startswith(f"container-healthcheck: argument {said}")
    assert done.stderr.endswith(": see container-healthcheck serve --help\n")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_a_bad_address_beside_a_port_is_named_where_it_stands() -> None:
    done = command("serve", "-port", "1", bind="foo")

    assert done.returncode == 2
    assert done.stderr.startswith("container-healthcheck: CONTAINER_HEALTHCHECK_BIND: 'foo' is not")


@pytest.mark.parametrize("flags", [["-nonsense"], ["-port"], ["-portx", "1"], ["extra"]])
def test_unknown_flags_are_refused(flags: list[str]) -> None:
    done = command("serve", *flags)

    assert done.returncode == 2
    assert done.stderr.startswith("container-healthcheck: ")
    assert done.stderr.endswith("--help\n")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"workers": "many"}, "CONTAINER_HEALTHCHECK_WORKERS: 'many' is not allowed: allowed is"),
        ({"worker": "2"}, "CONTAINER_HEALTHCHECK_WORKER: no such setting: did you mean"),
        ({"stale_after": "5"}, "CONTAINER_HEALTHCHECK_STALE_AFTER: 5 is not allowed: it must be"),
        ({"log_dir": "/proc/nope"}, "LOG_DIR: /proc/nope cannot be made"),
    ],
)
def test_bad_settings_stop_the_start_with_one_line(settings: dict[str, Any], said: str) -> None:
    done = command("serve", environment={}, **settings)

    assert done.returncode in (1, 2)
    assert done.stderr.startswith(f"container-healthcheck: {said}")
    assert done.stderr.count("\n") == 1


def test_bad_settings_stop_a_bare_gunicorn_as_well() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gunicorn", "wsgi:app"],
        env={**os.environ, PREFIX + "WORKERS": "many"},
        cwd=SOURCE,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 1
    assert done.stderr.startswith("container-healthcheck: CONTAINER_HEALTHCHECK_WORKERS: 'many'")
    assert "Traceback" not in done.stderr


def test_a_bare_gunicorn_serves(engine: PrivateEngine) -> None:
    service = RunningService(engine.url)
    service.command = [sys.executable, "-m", "gunicorn", "wsgi:app"]
    with service:
        assert service.code("nope") == 12


def test_a_port_that_is_taken_is_said_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        done = program("serve", bind=bind)

    assert done.returncode == 1
    assert done.stderr == (
        f"container-healthcheck: cannot listen on {bind}: Address already in use: another program"
        " listens there: stop it, or choose another address (BIND, or the flags -bind and -port)\n"
    )


def test_an_address_that_is_not_ours_is_said_in_one_line() -> None:
    done = command("serve", bind="192.0.2.1:4246")

    assert done.returncode == 1
    assert "cannot listen on 192.0.2.1:4246: Cannot assign requested address" in done.stderr


def test_a_log_folder_that_is_not_writable_is_said_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()

    done = program("serve", log_dir=str(file / "logs"))

    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"LOG_DIR: {file}/logs cannot be made: Not a directory" in done.stderr


@pytest.mark.parametrize("flag", ["-version", "--version"])
@pytest.mark.parametrize("subcommand", [[], ["serve"]])
def test_the_version(flag: str, subcommand: list[str]) -> None:
    done = command(*subcommand, flag)

    assert (done.returncode, done.stdout) == (0, f"container-healthcheck {__version__}\n")


def test_help_names_every_setting() -> None:
    help_text = command("serve", "--help").stdout

    for flag in ("-bind", "-probe-url", "-state-dir", "-port", "-ngx-port", "-level", "-logpath"):
        assert f"{flag} VALUE" in help_text
    assert command("--help").returncode == 0
    assert command().returncode == 2


# --- logging


def test_without_a_folder_all_goes_to_stderr(engine: PrivateEngine) -> None:
    with RunningService(engine.url) as service:
        service.check("nope")
        assert "watching" in wait_until(service.log_text, lambda text: "watching" in text, "log")
        assert "GET /" not in service.log_text()


def test_the_access_log_is_for_debugging_only(engine: PrivateEngine) -> None:
    with RunningService(engine.url, log_level="debug") as service:
        service.check("nope")
        wait_for(lambda: '/apps/health/nope HTTP/1.1" 503' in service.log_text(), "the access log")


def test_log_files_survive_rotation(
    engine: PrivateEngine, run: Run, app_code: str, tmp_path: Path
) -> None:
    folder = tmp_path / "logs"
    with RunningService(engine.url, log_level="debug", log_dir=folder) as service:
        log, access = folder / "container-healthcheck.log", folder / "access.log"
        service.check("nope")
        wait_for(lambda: "/nope" in access.read_text(), "the access log")
        for each in (log, access):
            each.rename(each.with_suffix(".1"))
        assert service.process is not None
        service.process.send_signal(signal.SIGUSR1)
        wait_for(lambda: log.exists() and access.exists(), "new files")

        run(f"{app_code}-1")
        line = re.compile(rf"\[INFO\] {app_code}: \S+ -> 0: ")
        wait_for(lambda: line.search(log.read_text()), "the journal in the new file")
        service.check("again")
        wait_for(lambda: "/again" in access.read_text(), "the access log in the new file")
        assert "/again" not in (folder / "access.1").read_text()


def test_a_change_is_logged_once_however_many_workers(
    engine: PrivateEngine, run: Run, app_code: str
) -> None:
    with RunningService(engine.url, workers=4) as service:
        container = run(f"{app_code}-1")
        service.settle(app_code, 0)
        for worker in service.workers()[:2]:
            os.kill(worker, signal.SIGKILL)
        container.kill()
        becomes(service, app_code, 13)
        wait_for(lambda: f"{app_code}: 0 -> 13: " in service.log_text(), "the change log")
        wait_for(lambda: len(service.workers()) == 4, "new workers")

    assert service_log_count(service, f"{app_code}: 0 -> 13: ") == 1


def service_log_count(service: RunningService, text: str) -> int:
    return service.final_log.count(text)


# --- the process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_it_ends_without_a_trace(engine: PrivateEngine, number: signal.Signals) -> None:
    """A terminal's Ctrl-C goes to all of its processes."""
    with RunningService(engine.url, workers=2) as service:
        assert service.code("nope") == 12
        for worker in service.workers():
            os.kill(worker, number)
        assert service.stop(number) == 0

    # Older gevents complain of a logging handler when a process ends; that is not ours.
    assert "SystemExit" not in service.final_log
    assert "Shutting down" in service.final_log


def test_a_worker_that_dies_is_replaced(engine: PrivateEngine) -> None:
    with RunningService(engine.url, workers=2) as service:
        old = service.workers()
        os.kill(old[0], signal.SIGKILL)
        wait_for(
            lambda: len(service.workers()) == 2 and old[0] not in service.workers(), "a new worker"
        )
        assert service.code("nope") == 12


def test_a_reload_replaces_the_workers_and_refuses_nobody(
    engine: PrivateEngine, run: Run, app_code: str
) -> None:
    run(f"{app_code}-1")
    with RunningService(engine.url, workers=2) as service:
        service.settle(app_code, 0)
        old = set(service.workers())
        assert service.process is not None
        service.process.send_signal(signal.SIGHUP)
        codes = []
        give_up = time.monotonic() + 60
        while old & set(service.workers()):
            assert time.monotonic() < give_up
            codes.append(service.code(app_code))
        assert set(codes) <= {0}
        assert service.code(app_code) == 0


def test_a_client_that_has_connected_is_answered_by_a_worker_that_stops(
    engine: PrivateEngine,
) -> None:
    with RunningService(engine.url, workers=1) as service:
        [worker] = service.workers()
        with (
            closing(http.client.HTTPConnection(service.host, service.port, timeout=60)) as idle,
            closing(http.client.HTTPConnection(service.host, service.port, timeout=60)) as new,
        ):
            new.connect()
            # Connections are accepted in turn.
            assert ask_on(idle, service.prefix + "/health").status == 200
            os.kill(worker, signal.SIGTERM)
            assert idle.sock.recv(1) == b""

            assert ask_on(new, service.prefix + "/health").status == 200


def test_clients_that_never_ask_do_not_keep_a_worker(engine: PrivateEngine) -> None:
    with (
        RunningService(engine.url, workers=1) as service,
        socket.create_connection((service.host, service.port)) as silent,
    ):
        assert service.code("nope") == 12
        assert service.stop() == 0
        assert silent.recv(1) == b""
    assert "graceful timeout" not in service.final_log


def test_no_control_socket_is_opened(engine: PrivateEngine, tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    with RunningService(engine.url, environment=home) as service:
        assert service.code("nope") == 12
        assert list(tmp_path.iterdir()) == []


def test_slow_clients_do_not_stop_checks(engine: PrivateEngine) -> None:
    """500 clients: silent ones, half-sent requests, and a byte now and then."""
    with RunningService(engine.url) as service:
        parts = [b"", b"GET /container-healthcheck/he", b"GET / HTTP/1.1\r\nX: "]
        clients = []
        for number in range(500):
            client = socket.create_connection((service.host, service.port), timeout=60)
            clients.append(client)
            client.sendall(parts[number % 3])
        for number in range(200):
            clients[number].sendall(b"x")
            assert service.code("nope") == 12
        for client in clients:
            client.close()


# --- check


def test_check_asks_the_service(own: RunningService, run: Run, app_code: str) -> None:
    run(f"own.{app_code}-1")
    becomes(own, app_code, 0)

    done = program("check", app_code, environment=own.environment)

    assert done.returncode == 0
    assert re.fullmatch(rf"OK: {app_code}: own\.{app_code}-1 Up .*\n", done.stdout)


def test_check_says_critical(own: RunningService, run: Run, app_code: str) -> None:
    run(f"own.{app_code}-1", command="true")
    wait_for(lambda: "exited" in str(own.check(app_code).json), "the end of the container")

    done = asking(own, "check", app_code)

    assert done.returncode == 2
    assert done.stdout.startswith(f"CRITICAL: {app_code}: own.{app_code}-1 is exited: Exited (0)")
    assert asking(own, "check", "nope").stdout == (
        "CRITICAL: nope: no container of nope on this host\n"
    )


@pytest.mark.parametrize("direct", [[], ["--direct"]])
@pytest.mark.parametrize("app_code", ["(", "", "..", "a/b", "a" * 129, "应用"])
def test_check_of_what_is_no_app_code_is_unknown(
    service: RunningService, direct: list[str], app_code: str
) -> None:
    done = asking(service, "check", *direct, "--", app_code)

    assert done.returncode == 3
    assert done.stdout.startswith("UNKNOWN: ")
    assert done.stdout.count("\n") == 1


@pytest.mark.parametrize("arguments", [["check", "bk_iam"], ["list"]])
def test_a_wrong_setting_is_no_verdict(arguments: list[str]) -> None:
    """A monitoring system must not take it for a dead app."""
    done = program(*arguments, workers="many")

    assert done.returncode == 3
    assert "CONTAINER_HEALTHCHECK_WORKERS: 'many' is not allowed" in done.stderr


@pytest.mark.parametrize("arguments", [["check"], ["check", "a", "b"], ["list", "--nonsense"]])
def test_a_wrong_call_is_no_verdict(arguments: list[str]) -> None:
    done = command(*arguments)

    assert done.returncode == 3
    assert done.stderr.count("\n") == 1


def test_check_without_a_service_is_unknown() -> None:
    port = free_port()

    done = command("check", "bk_iam", bind=f"127.0.0.1:{port}")

    assert done.returncode == 3
    assert done.stdout.startswith(
        f"UNKNOWN: bk_iam: no answer from http://127.0.0.1:{port}/container-healthcheck/apps/health"
    )
    assert "is the service running" in done.stdout


def test_check_as_json_is_the_answer(own: RunningService, run: Run, app_code: str) -> None:
    run(f"own.{app_code}-1")
    becomes(own, app_code, 0)

    answered = json.loads(asking(own, "check", app_code, "--json").stdout)
    call = ("check", app_code, "--json", "--direct")
    direct = json.loads(program(*call, environment=own.environment).stdout)

    assert answered["code"] == direct["code"] == 0
    assert list(answered["message"]) == list(direct["message"])
    assert answered["message"]["container_id"] == direct["message"]["container_id"]


def test_check_with_a_url_of_its_own(service: RunningService) -> None:
    url = f"http://{service.host}:{service.port}{service.prefix}/"

    assert command("check", "nope", "--url", url).returncode == 2


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1:1/x",
        "127.0.0.1:4246",
        "http://h:x/",
        "http://h:99999/",
        "http://h:0/",
        "http:///",
        "http://[::1/",
        "http://h/a b",
        "http://h/x?all=true",
        "http://h/x#y",
    ],
)
def test_a_url_that_is_none_is_refused(url: str, tmp_path: Path) -> None:
    said = (
        f"--url: {url!r} is not allowed: allowed is an http:// address, such as"
        " http://127.0.0.1:4246/container-healthcheck"
    )

    done = command("check", "nope", "--url", url)
    assert (done.returncode, done.stdout) == (3, f"UNKNOWN: nope: {said}\n")

    done = command("check", "nope", "--json", "--url", url)
    assert done.returncode == 3
    assert json.loads(done.stdout) == {"code": None, "status": "error", "message": said}

    done = command("drain", "nope", "--url", url, state_dir=tmp_path)
    assert (done.returncode, done.stderr) == (2, f"container-healthcheck: {said}\n")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_url_is_the_default(service: RunningService) -> None:
    assert asking(service, "check", "nope", "--url", "").returncode == 2


def test_a_url_without_the_prefix_is_told_of_it(own: RunningService, tmp_path: Path) -> None:
    url = f"http://{own.host}:{own.port}"
    said = f"the paths here begin with {own.prefix}/"

    done = command("check", "nope", "--url", url)
    assert (done.returncode, said in done.stdout) == (3, True)

    done = command("drain", "nope", "--url", url, state_dir=tmp_path)
    assert (done.returncode, said in done.stderr) == (1, True)
    assert f"the mark stays, but whether {url} obeys it cannot be seen: no such path" in done.stderr
    assert (tmp_path / "drains" / "nope.json").is_file()


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n<html>",
        b"HTTP/1.0 200 OK\r\n\r\n[]",
        b'HTTP/1.0 200 OK\r\n\r\n{"code":0}',
        b"HTTP/1.0 200 OK\r\n\r\n\xff",
    ],
)
def test_another_service_at_the_address_is_unknown(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with server.accept()[0] as client:
                client.recv(65536)
                client.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        done = command("check", "nope", "--url", url)

    assert done.returncode == 3
    assert "is not this service" in done.stdout


@pytest.mark.parametrize("text", ["0", "-1", "x", "nan"])
def test_a_time_out_that_is_none_is_refused(text: str) -> None:
    done = command("check", "nope", "--timeout", text)

    assert done.returncode == 3
    assert "allowed is a number of seconds" in done.stderr


def test_check_direct_needs_no_service(
    engine: PrivateEngine, run: Run, app_code: str, tmp_path: Path
) -> None:
    settings = {"environment": {"DOCKER_HOST": engine.url}, "state_dir": str(tmp_path)}
    run(f"{app_code}-1")
    run(f"{app_code}_app-1")

    done = program("check", "--direct", app_code, **settings)  # type: ignore[arg-type]
    assert done.returncode == 0, done.stdout
    assert done.stdout.startswith(f"OK: {app_code}: {app_code}-1 Up ")
    missing = program("check", "--direct", app_code[:-1], **settings)  # type: ignore[arg-type]
    assert missing.returncode == 2
    command("drain", app_code, "--reason", "test", "--timeout", "1", **settings)  # type: ignore[arg-type]
    drained = program("check", "--direct", app_code, **settings)  # type: ignore[arg-type]
    assert drained.returncode == 2
    assert drained.stdout.strip().endswith("test")


def test_check_direct_without_an_engine_is_unknown(tmp_path: Path) -> None:
    url = f"unix://{tmp_path}/docker.sock"

    done = program("check", "--direct", "bk_iam", environment={"DOCKER_HOST": url})

    assert done.returncode == 3
    assert done.stdout.startswith(f"UNKNOWN: bk_iam: cannot connect to Docker at {url}: no such")


@pytest.mark.parametrize(
    ("flags", "settings"),
    [
        ([], {"docker_timeout": 0.5}),
        (["--timeout", "0.5"], {"docker_timeout": 60, "stale_after": 100}),
    ],
)
def test_check_direct_gives_a_hung_engine_up(
    tmp_path: Path, flags: list[str], settings: dict[str, Any]
) -> None:
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen()
        done = program(
            "check", "--direct", "bk_iam",
            *flags, environment={"DOCKER_HOST": f"unix://{path}"}, **settings,
        )  # fmt: skip

    assert done.returncode == 3
    assert "does not answer in time" in done.stdout


# --- output that nobody takes


def piped(output: int, *arguments: str) -> tuple[int, str]:
    """Runs it with that output, which Python keeps back until the end."""
    environment = {name: value for name, value in os.environ.items() if "UNBUFFERED" not in name}
    done = subprocess.run(
        [sys.executable, "-m", "container_healthcheck", *arguments],
        env=environment, cwd=SOURCE, stdout=output, stderr=subprocess.PIPE, timeout=120,
    )  # fmt: skip
    return done.returncode, done.stderr.decode()


def test_a_reader_that_has_gone_is_no_trace() -> None:
    reader, writer = os.pipe()
    os.close(reader)

    assert piped(writer, "completion", "bash") == (1, "")
    os.close(writer)


def test_output_that_finds_no_room_is_said() -> None:
    with Path("/dev/full").open("wb") as full:
        code, said = piped(full.fileno(), "completion", "bash")

    assert (code, said) == (2, "container-healthcheck: No space left on device\n")


# --- list


def test_list_is_a_table(own: RunningService, run: Run, app_code: str) -> None:
    run(f"own.{app_code}-1")
    becomes(own, app_code, 0)
    done = asking(own, "list")

    assert done.returncode == 0
    header, row = done.stdout.splitlines()
    assert header.split() == ["APP", "CODE", "SINCE", "CONTAINERS", "WHAT"]
    assert re.match(rf"{app_code} +0 +20\d\d-\d\d-\d\d \d\d:\d\d:\d\d +1 +own\.{app_code}-1 ", row)

    run(f"own.{app_code}dead-1", command="true")
    wait_for(lambda: asking(own, "list").returncode == 2, "the dead app in the list")
    answer = json.loads(asking(own, "list", "--json").stdout)
    assert [app["app_code"] for app in answer["message"]] == [app_code, f"{app_code}dead"]


def test_changes_is_a_table(own: RunningService, run: Run, app_code: str) -> None:
    container = run(f"own.{app_code}-1")
    becomes(own, app_code, 0)
    container.kill()
    becomes(own, app_code, 13)

    def died(text: str) -> bool:
        return f"{app_code}  0 -> 13" in text

    text = wait_until(lambda: asking(own, "changes", app_code).stdout, died, "the change")

    header, first, *_ = text.splitlines()
    assert header.split() == ["AT", "APP", "CODE", "WHY"]
    assert re.match(
        rf"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d  {app_code}  0 -> 13 +own\.{app_code}-1 ", first
    )
    every = asking(own, "changes").stdout
    # Other apps' names may be longer.
    assert first.split() in [line.split() for line in every.splitlines()]
    answer = json.loads(asking(own, "changes", app_code, "--json").stdout)
    assert answer["message"][0]["new"] == 13
    assert asking(own, "changes", "nobody").stdout.splitlines() == ["AT  APP  CODE  WHY"]


def test_changes_that_cannot_be_had_are_said() -> None:
    done = command("changes", bind=f"127.0.0.1:{free_port()}")
    assert (done.returncode, done.stdout) == (1, "")
    assert "is the service running" in done.stderr
    done = command("changes", "not/one")
    assert done.returncode == 2
    assert "'not/one' is not an app code" in done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("-version", "unrecognized arguments: -version"),
        ("--help", "unrecognized arguments: --help"),
        ("-prot 4246", "unrecognized arguments: -prot 4246"),
        ("-port", "expected one argument"),
        ("-port 99999999", "OPTS: argument -port/--port: '99999999' is not allowed"),
        ("-level loud", "OPTS: argument -level/--level: 'loud' is not allowed"),
        ("'", "OPTS: No closing quotation"),
    ],
)
def test_wrong_options_of_the_service_are_no_verdict(
    own: RunningService, tmp_path: Path, options: str, said: str
) -> None:
    """They stand in the file that the package's service is started with."""
    file = tmp_path / "settings"
    file.write_text(f'OPTS="{options}"\n')
    for arguments in (["check", "bk_iam"], ["list"]):
        done = command(*arguments, environment={"HEALTHCHECK_ENVIRONMENT_FILE": str(file)})

        assert (done.returncode, done.stdout) == (3, "")
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_list_without_a_service_or_an_engine_is_unknown(tmp_path: Path) -> None:
    assert command("list", bind=f"127.0.0.1:{free_port()}").returncode == 3
    with RunningService(f"unix://{tmp_path}/docker.sock") as service:
        done = asking(service, "list")
        assert done.returncode == 3
        assert "cannot connect to Docker" in done.stderr
        assert asking(service, "list", "--json").returncode == 3


# --- drain


def test_a_drain_is_obeyed_at_once_by_every_worker_and_kept(
    own: RunningService, run: Run, app_code: str
) -> None:
    run(f"own.{app_code}-1")
    becomes(own, app_code, 0)

    done = asking(own, "drain", app_code, "--reason", "磁盘更换", "--for", "30m")
    assert done.returncode == 0, done.stderr
    assert f"{app_code} is drained since 20" in done.stdout
    assert "obeys it" in done.stdout
    for _ in range(50):
        assert own.code(app_code) == 15
    message = own.check(app_code).json["message"]
    assert re.search(r"is drained since 2\d{3}-.* until 2\d{3}-.*: 磁盘更换", message)
    assert "磁盘更换" in asking(own, "list").stdout
    assert own.get("/apps").json["message"][0]["message"] == message

    own.stop()
    own.start()
    assert own.code(app_code) == 15

    done = asking(own, "undrain", app_code)
    assert (done.returncode, done.stdout) == (0, f"{app_code} is drained no more\n")
    for _ in range(50):
        assert own.code(app_code) == 0
    assert asking(own, "undrain", app_code).stdout == f"{app_code} was not drained\n"


def test_a_drain_of_an_app_that_is_not_here_says_so(
    own: RunningService, run: Run, app_code: str
) -> None:
    run(f"own.{app_code}-1")
    becomes(own, app_code, 0)

    assert asking(own, "drain", app_code).stderr == ""
    done = asking(own, "drain", f"{app_code}z")

    assert (done.returncode, done.stderr) == (
        0, f"no container of {app_code}z is here now: is the name right?\n"
    )  # fmt: skip
    assert own.code(f"{app_code}z") == 15


def test_a_drain_ends_by_itself(own: RunningService, run: Run, app_code: str) -> None:
    run(f"own.{app_code}-1")
    becomes(own, app_code, 0)

    asking(own, "drain", app_code, "--for", "2s")
    assert own.code(app_code) == 15
    becomes(own, app_code, 0)


def test_the_whole_host_is_drained(own: RunningService, run: Run, app_code: str) -> None:
    run(f"own.{app_code}-1")
    becomes(own, app_code, 0)

    done = asking(own, "drain", "--all", "--reason", "kernel")
    assert done.returncode == 0
    assert "obeys it" in done.stdout
    assert own.code(app_code) == own.code("nope") == 15
    assert own.get("/apps/health").json["message"] == {app_code: 15}
    asking(own, "drain", app_code)
    assert "but this host is drained" in asking(own, "undrain", app_code).stdout
    asking(own, "undrain", "--all")
    assert own.code(app_code) == 0


def test_an_unreadable_mark_counts_as_drained(own: RunningService, app_code: str) -> None:
    folder = Path(own.folder.name) / "drains"
    folder.mkdir(exist_ok=True)
    (folder / f"{app_code}.json").write_text("{")

    becomes(own, app_code, 15)
    answer = own.check(app_code)

    assert answer.status == 503
    assert "its mark cannot be read" in answer.json["message"]


def test_a_drain_that_the_service_does_not_see_is_said(own: RunningService, tmp_path: Path) -> None:
    environment = {**own.environment, PREFIX + "STATE_DIR": str(tmp_path)}

    done = command("drain", "bk_iam", environment=environment)

    assert done.returncode == 1
    assert f"does not see the mark in {tmp_path}: its STATE_DIR is another" in done.stderr


def test_a_drain_without_a_service_waits_for_it(tmp_path: Path) -> None:
    done = command("drain", "bk_iam", state_dir=tmp_path, bind=f"127.0.0.1:{free_port()}")

    assert done.returncode == 0
    assert "the mark waits for the service" in done.stderr
    assert (tmp_path / "drains" / "bk_iam.json").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["drain"],
        ["drain", "bk_iam", "--all"],
        ["drain", "../x"],
        ["drain", ""],
        ["drain", "bk_iam", "--for", "0m"],
        ["drain", "bk_iam", "--for", "30"],
        ["drain", "bk_iam", "--for", "-1m"],
        ["undrain"],
        ["undrain", "a/b"],
    ],
)
def test_bad_input_changes_nothing(tmp_path: Path, arguments: list[str]) -> None:
    done = command(*arguments, state_dir=tmp_path)

    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_marks_that_cannot_be_written_or_removed_are_said(tmp_path: Path) -> None:
    (tmp_path / "drains").touch()

    for arguments in (["drain", "bk_iam"], ["undrain", "bk_iam"]):
        done = command(*arguments, state_dir=tmp_path)
        assert done.returncode == 1
        assert "the mark cannot be" in done.stderr
        assert (
            ": Not a directory: that folder must be writable for this user (try as root)"
            in done.stderr
        )
        assert "Traceback" not in done.stderr
