"""The command line: `container-healthcheck serve | check | list | drain | undrain`.

Exit codes of `check` and `list` are those of monitoring plugins: 0 healthy, 2 not, 3 unknown. Those
of the others: 0 done, 1 failed, 2 called wrongly.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import re
import shlex
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

from container_healthcheck import __version__, config, environment_file, formatter, handover
from container_healthcheck.board import Report
from container_healthcheck.client import ServiceError, ask, service_url
from container_healthcheck.config import Bind, Settings, SettingsError, environment_name
from container_healthcheck.drains import HOST, DrainFolder
from container_healthcheck.names import is_app_code
from container_healthcheck.picture import Picture, draw
from container_healthcheck.verdict import Code

HEALTHY, FAILED, WRONG_CALL = 0, 1, 2
NOT_HEALTHY, UNKNOWN = 2, 3
_REFUSALS = {Code.NO_CONTAINER, Code.NOT_HEALTHY, Code.NOT_SERVING, Code.DRAINED}

# Flags of the Go tool 1.0.x that are settings under another name.
_GO_FLAGS = {"level": "log_level", "logpath": "log_dir"}
_GUNICORN = ("-m", "gunicorn", "-c", "python:container_healthcheck.server")
# Where the service's environment stands, if the package that is installed says so; its flags are in
# the variable OPTS there.
_ENVIRONMENT_FILE = "HEALTHCHECK_ENVIRONMENT_FILE"
_PORT_WAIT = 3.0
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments and arguments[0] in ("-version", "--version"):
        print(f"container-healthcheck {__version__}")
        return 0
    # The Go tool has no subcommands: its flags alone mean `serve`.
    if arguments and arguments[0].startswith("-") and arguments[0] not in ("-h", "--help"):
        arguments.insert(0, "serve")
    parsed = _parser().parse_args(arguments)
    try:
        if parsed.run is not _serve:
            _adopt_service_environment()
        code: int = parsed.run(parsed)
    except SettingsError as error:
        return _complain(str(error), WRONG_CALL)
    except BrokenPipeError:
        sys.stderr.close()
        return FAILED
    return code


def _complain(text: str, code: int) -> int:
    print(f"container-healthcheck: {text}", file=sys.stderr)
    return code


def _adopt_service_environment() -> None:
    """Takes over what the service is given, where the caller's own environment does not say more.

    Raises SettingsError.
    """
    path = os.environ.get(_ENVIRONMENT_FILE)
    if not path or not Path(path).exists():
        return
    try:
        given = dict(environment_file.read(Path(path)))
        flags = _parser().parse_args(["serve", *shlex.split(given.pop("OPTS", ""))])
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SettingsError(f"{path}: OPTS: {error}") from error
    callers = dict(os.environ)
    os.environ.update({**given, **callers})
    os.environ.update({**_flags_as_environment(flags), **callers})


# --- serve


def _serve(parsed: argparse.Namespace) -> int:
    environ = {**os.environ, **_flags_as_environment(parsed)}
    settings = Settings.from_environment(environ)
    problem = _log_dir_problem(settings)
    if problem is None and not handover.takes_over(settings.bind, environ):
        problem = _port_problem(settings.bind)
    if problem is None:
        _become_gunicorn(environ)
    return _complain(str(problem), FAILED)


def _become_gunicorn(environ: Mapping[str, str]) -> NoReturn:
    os.execve(sys.executable, [sys.executable, *_GUNICORN], environ)  # noqa: S606


def _flags_as_environment(parsed: argparse.Namespace) -> dict[str, str]:
    """What the flags say, as environment variables; each flag wins over its variable."""
    given = {name: value for name, value in vars(parsed).items() if isinstance(value, str)}
    port, ngx_port = given.pop("port", None), given.pop("ngx_port", None)
    values = {environment_name(_GO_FLAGS.get(name, name)): text for name, text in given.items()}
    if port is not None:
        bind = values.get(environment_name("bind"))
        bind = bind or os.environ.get(environment_name("bind"), str(Settings().bind))
        values[environment_name("bind")] = str(
            replace(
                _flag("-bind", bind, config.parse_bind),
                port=_flag("-port", port, config.parse_port),
            )
        )
    probe_url = environment_name("probe_url")
    if ngx_port is not None and not values.get(probe_url, os.environ.get(probe_url)):
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


# --- check and list


def _check(parsed: argparse.Namespace) -> int:
    settings = config.from_process_environment()
    app_code = parsed.app_code
    try:
        if not is_app_code(app_code):
            raise ServiceError(
                "not an app code: letters, digits and _ . - are allowed, the first one a letter or"
                " digit, 128 at most"
            )
        if parsed.direct:
            answer = _check_direct(settings, app_code)
        else:
            answer = ask(_url(parsed, settings), f"/apps/health/{app_code}", parsed.timeout)
    except ServiceError as error:
        answer = {"code": None, "status": "error", "message": str(error)}
    exit_code = _plugin_exit(answer["code"])
    if parsed.json:
        print(json.dumps(answer, ensure_ascii=False, separators=(",", ":")))
    else:
        word = {HEALTHY: "OK", NOT_HEALTHY: "CRITICAL"}.get(exit_code, "UNKNOWN")
        print(f"{word}: {app_code}: {_one_line(answer)}")
    return exit_code


def _check_direct(settings: Settings, app_code: str) -> dict[str, Any]:
    """The verdict from Docker itself, with no service and no probe."""
    # docker-py takes a tenth of a second to import, in which a restarting service would be away.
    from container_healthcheck.engine import Engine, EngineError

    engine = Engine(settings, bounded=_bounded_by_alarm)
    now = time.monotonic()
    prefix = re.escape(settings.name_pattern.before + app_code)
    try:
        containers = engine.containers(name_prefix=prefix)
        picture = draw(containers, settings.name_pattern, confirmed_at=now)
    except EngineError as error:
        picture = Picture(fault=error.fault)
    finally:
        engine.close()
    drains = DrainFolder(settings.state_dir).current()
    report = Report(picture, {}, drains, now=now, stale_after=settings.stale_after)
    return formatter.verdict_fields(report.verdict(app_code))


@contextmanager
def _bounded_by_alarm(seconds: float) -> Iterator[None]:
    def give_up(*_: object) -> NoReturn:
        raise TimeoutError(f"not done within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _list(parsed: argparse.Namespace) -> int:
    settings = config.from_process_environment()
    try:
        answer = ask(_url(parsed, settings), "/apps", parsed.timeout)
    except ServiceError as error:
        return _complain(str(error), UNKNOWN)
    if parsed.json:
        print(json.dumps(answer, ensure_ascii=False, separators=(",", ":")))
    elif answer["code"] == Code.HEALTHY:
        _print_table(answer["message"])
    else:
        return _complain(str(answer["message"]), UNKNOWN)
    if answer["code"] != Code.HEALTHY:
        return UNKNOWN
    return HEALTHY if all(app["code"] == 0 for app in answer["message"]) else NOT_HEALTHY


def _print_table(apps: Sequence[Mapping[str, Any]]) -> None:
    rows = [("APP", "CODE", "CONTAINERS", "WHAT")]
    for app in apps:
        rows.append(
            (app["app_code"], str(app["code"]), str(len(app["containers"])), _one_line(app))
        )
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=False))
        print("  ".join((*cells, row[3])))


def _one_line(answer: Mapping[str, Any]) -> str:
    message = answer["message"]
    if isinstance(message, Mapping):
        message = f"{message['names']} {message['status']}"
    return " ".join(str(message).split())


def _plugin_exit(code: int | None) -> int:
    if code == Code.HEALTHY:
        return HEALTHY
    return NOT_HEALTHY if code in _REFUSALS else UNKNOWN


def _url(parsed: argparse.Namespace, settings: Settings) -> str:
    return parsed.url or service_url(settings)


# --- drain and undrain


def _drain(parsed: argparse.Namespace) -> int:
    settings = config.from_process_environment()
    folder = DrainFolder(settings.state_dir)
    name, what = _drain_target(parsed)
    until = time.time() + parsed.duration.total_seconds() if parsed.duration else None
    try:
        mark = folder.add(name, parsed.reason, until)
        folder.remove_ended()
    except OSError as error:
        return _complain(f"the mark cannot be written in {folder.path}: {error.strerror}", FAILED)
    print(mark.sentence(what))
    # Any app code will do to see whether the host is drained.
    return _confirm(parsed, settings, "host" if name == HOST else name)


def _confirm(parsed: argparse.Namespace, settings: Settings, app_code: str) -> int:
    """Sees that the service obeys the mark: it may look in another folder."""
    url = _url(parsed, settings)
    try:
        code = ask(url, f"/apps/health/{app_code}", parsed.timeout)["code"]
    except ServiceError as error:
        print(f"the mark waits for the service: {error}", file=sys.stderr)
        return 0
    if code == Code.DRAINED:
        print(f"the service at {url} obeys it")
        return 0
    return _complain(
        f"the service at {url} does not see the mark in {settings.state_dir}: its STATE_DIR is"
        f" another (give this command its {environment_name('state_dir')}), or its user may not"
        " read it",
        FAILED,
    )


def _undrain(parsed: argparse.Namespace) -> int:
    folder = DrainFolder(config.from_process_environment().state_dir)
    name, what = _drain_target(parsed)
    try:
        was_drained = folder.remove(name)
        folder.remove_ended()
    except OSError as error:
        return _complain(f"the mark cannot be removed from {folder.path}: {error.strerror}", FAILED)
    print(f"{what} is drained no more" if was_drained else f"{what} was not drained")
    if name != HOST and (reason := folder.current().reason(name)):
        print(f"but {reason}")
    return 0


def _drain_target(parsed: argparse.Namespace) -> tuple[str, str]:
    if parsed.all:
        return HOST, "this host"
    if not is_app_code(parsed.app_code):
        raise SettingsError(f"{parsed.app_code!r} is not an app code")
    return parsed.app_code, parsed.app_code


def _duration(text: str) -> timedelta:
    found = re.fullmatch(r"([0-9]{1,6})([smhd])", text)
    if not found or not int(found.group(1)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a time: allowed are 90s, 30m, 2h, 1d")
    return timedelta(**{_UNITS[found.group(2)]: int(found.group(1))})


def _positive(text: str) -> float:
    try:
        return config.parse_seconds(0.1, 3600)(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


# --- the parser


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line each, as a journal wants them."""

    def error(self, message: str) -> NoReturn:
        """Says what is wrong and ends the program."""
        program = self.prog.partition(" ")[0]
        self.exit(WRONG_CALL, f"{program}: {message}: see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="container-healthcheck",
        description="Tells a gateway whether the container of each app on this host serves.",
        epilog="--version prints the version.",
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    _add_serve(commands)
    _add_check(commands)
    _add_list(commands)
    _add_drain(commands)
    _add_undrain(commands)
    return parser


def _add_serve(commands: Any) -> None:
    serve = commands.add_parser(
        "serve",
        help="run the service",
        allow_abbrev=False,
        description="Runs the service. Every flag may have one dash or two, and wins over the"
        " environment variable CONTAINER_HEALTHCHECK_….",
    )
    serve.set_defaults(run=_serve)
    for setting in config.documented_settings():
        flag = setting.name.replace("_", "-")
        default = config.shown(setting.metadata["default"])
        _add_text_flag(serve, flag, f"{setting.metadata['meaning']} (default: {default})")
    _add_text_flag(serve, "port", "port to listen on, at the address of --bind")
    _add_text_flag(serve, "ngx-port", "probe each app at http://127.0.0.1:<port>/o/<app_code>/")
    _add_text_flag(serve, "level", "the same as --log-level")
    _add_text_flag(serve, "logpath", "the same as --log-dir")
    serve.add_argument(
        "-version", "--version", action="version", version=f"container-healthcheck {__version__}"
    )


def _add_text_flag(parser: argparse.ArgumentParser, flag: str, meaning: str) -> None:
    parser.add_argument(f"-{flag}", f"--{flag}", metavar="VALUE", help=meaning.replace("%", "%%"))


def _add_check(commands: Any) -> None:
    check = commands.add_parser("check", help="say whether an app is healthy here: exit 0, 2 or 3")
    check.set_defaults(run=_check)
    check.add_argument("app_code")
    check.add_argument("--direct", action="store_true", help="ask Docker itself, not the service")
    _add_question(check)


def _add_list(commands: Any) -> None:
    overview = commands.add_parser("list", help="show all apps: exit 0 if all are healthy, 2, or 3")
    overview.set_defaults(run=_list)
    _add_question(overview)


def _add_question(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the answer as it is")
    _add_service(parser)


def _add_drain(commands: Any) -> None:
    drain = commands.add_parser("drain", help="take an app, or the whole host, out on purpose")
    drain.set_defaults(run=_drain)
    _add_target(drain)
    drain.add_argument("--reason", default="", metavar="TEXT", help="why, for those who wonder")
    drain.add_argument(
        "--for",
        dest="duration",
        type=_duration,
        metavar="TIME",
        help="ends by itself: 90s, 30m, 2h, 1d",
    )
    _add_service(drain)


def _add_undrain(commands: Any) -> None:
    undrain = commands.add_parser("undrain", help="end a drain")
    undrain.set_defaults(run=_undrain)
    _add_target(undrain)


def _add_target(parser: argparse.ArgumentParser) -> None:
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("app_code", nargs="?", help="the app")
    target.add_argument("--all", action="store_true", help="the whole host")


def _add_service(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", help="where the service answers, its prefix included")
    parser.add_argument(
        "--timeout", type=_positive, default=5.0, metavar="S", help="time-out in seconds"
    )
