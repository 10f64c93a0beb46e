"""`container-healthcheck serve`: from flags and environment to a running gunicorn."""

from __future__ import annotations

import argparse
import errno
import os
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import NoReturn

from container_healthcheck import settings as config
from container_healthcheck.server import handover
from container_healthcheck.settings import Bind, Settings, SettingsError, environment_name

# Flags of the Go tool 1.0.x that are settings under another name.
_GO_FLAGS = {"level": "log_level", "logpath": "log_dir"}
_GUNICORN = ("-m", "gunicorn", "-c", "python:container_healthcheck.server.gunicorn_config")
# How long a predecessor may take to let go of the port, in seconds.
_PORT_WAIT = 3.0


def serve(parsed: argparse.Namespace, environ: Mapping[str, str]) -> str:
    """Becomes gunicorn, or returns the one line that says why it cannot.

    `parsed` holds the flags. Raises SettingsError.
    """
    environ = {**environ, **flags_as_environment(parsed, environ)}
    settings = Settings.from_environment(environ)
    problem = _log_dir_problem(settings)
    if problem is None and not handover.takes_over(settings.bind, environ):
        problem = _port_problem(settings.bind)
    if problem is None:
        _become_gunicorn(environ)
    return str(problem)


def _become_gunicorn(environ: Mapping[str, str]) -> NoReturn:
    os.execve(sys.executable, [sys.executable, *_GUNICORN], environ)  # noqa: S606


def flags_as_environment(parsed: argparse.Namespace, environ: Mapping[str, str]) -> dict[str, str]:
    """What the flags of `serve` say, as environment variables, beside those in `environ`.

    Raises SettingsError.
    """
    given = {name: value for name, value in vars(parsed).items() if isinstance(value, str)}
    port, ngx_port = given.pop("port", None), given.pop("ngx_port", None)
    values = {environment_name(_GO_FLAGS.get(name, name)): text for name, text in given.items()}
    if port is not None:
        bind = values.get(environment_name("bind"))
        bind = bind or environ.get(environment_name("bind"), str(Settings().bind))
        values[environment_name("bind")] = str(
            replace(
                _flag("-bind", bind, config.parse_bind),
                port=_flag("-port", port, config.parse_port),
            )
        )
    probe_url = environment_name("probe_url")
    if ngx_port is not None and not values.get(probe_url, environ.get(probe_url)):
        checked = _flag("-ngx-port", ngx_port, config.parse_port)
        values[probe_url] = f"http://127.0.0.1:{checked}/o/{{app_code}}/"
    return values


def _flag(name: str, text: str, parse: config.Parser[config.T]) -> config.T:
    try:
        return parse(text)
    except ValueError as error:
        raise SettingsError(f"{name}: {text!r} is not allowed: {error}") from error


def _log_dir_problem(settings: Settings) -> str | None:
    folder = settings.log_dir
    if folder is None:
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return f"LOG_DIR: {folder} cannot be made: {error.strerror}"
    for log in (folder / name for name in config.log_files(settings.log_level)):
        try:
            log.open("ab").close()
        except OSError as error:
            return (
                f"LOG_DIR: {log} cannot be written: {error.strerror}: let this user write there,"
                " or change the setting"
            )
    return None


def _port_problem(bind: Bind) -> str | None:
    """Why the address cannot be listened on; it may take a moment until a predecessor lets go."""
    give_up = time.monotonic() + _PORT_WAIT
    while True:
        try:
            _try_to_listen(bind)
        except OSError as error:
            if error.errno == errno.EADDRINUSE and time.monotonic() < give_up:
                time.sleep(0.1)
                continue
            advice = {
                errno.EADDRINUSE: "another program listens there: stop it, or change BIND",
                errno.EACCES: "not permitted: use a port above 1023",
            }.get(error.errno or 0, "change BIND")
            return f"cannot listen on {bind}: {error.strerror}: {advice}"
        return None


def _try_to_listen(bind: Bind) -> None:
    family, kind, protocol, _, address = socket.getaddrinfo(
        bind.host, bind.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, kind, protocol) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
