"""The command line of `container-healthcheck`: its commands, and what their flags are.

What is called wrongly exits with 2, and with 3 (unknown) where a monitoring system may be asking.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

from container_healthcheck import __version__
from container_healthcheck.cli import completion, environment_file, flags
from container_healthcheck.cli.exit_codes import FAILED, UNKNOWN, WRONG_CALL, complain
from container_healthcheck.parsing import parse_seconds
from container_healthcheck.server.launch import LaunchError, serve
from container_healthcheck.settings import Settings, SettingsError

# Where the service's environment stands, if the package that is installed says so; its flags are in
# the variable OPTS there.
_ENVIRONMENT_FILE = "HEALTHCHECK_ENVIRONMENT_FILE"
_OWN_FLAGS = ("-h", "--help", "-version", "--version")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

Command = Callable[[argparse.Namespace, Mapping[str, str]], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    # The Go tool has no subcommands: its flags alone mean `serve`.
    if arguments and arguments[0].startswith("-") and arguments[0] not in _OWN_FLAGS:
        arguments.insert(0, "serve")
    parsed, unknown = _parser().parse_known_args(arguments)
    if unknown:
        see = f"see container-healthcheck {arguments[0]} --help"
        return complain(f"unrecognized arguments: {shlex.join(unknown)}: {see}", parsed.wrong_call)
    run: Command = parsed.run
    try:
        code = run(parsed, os.environ)
        sys.stdout.flush()
    except SettingsError as error:
        return complain(str(error), parsed.wrong_call)
    except OSError as error:
        # What was not printed yet cannot be printed at the end either: Python would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return FAILED
        return complain(error.strerror or str(error), parsed.wrong_call)
    return code


def _serve(parsed: argparse.Namespace, environ: Mapping[str, str]) -> int:
    try:
        serve({**environ, **flags.as_environment(parsed, environ)})
    except LaunchError as error:
        return complain(str(error), FAILED)


def _asking(name: str) -> Command:
    """One of `commands`, given the settings that the service of this host has."""

    def run(parsed: argparse.Namespace, environ: Mapping[str, str]) -> int:
        # Only now: it takes half of the time that the command line needs to start, and `serve` is
        # to be quick.
        from container_healthcheck.cli import commands

        settings = Settings.from_environment(_service_environment(environ))
        command: Callable[[argparse.Namespace, Settings], int] = getattr(commands, name)
        return command(parsed, settings)

    return run


def _service_environment(environ: Mapping[str, str]) -> Mapping[str, str]:
    """What the service is given, where the caller's own environment does not say more.

    Raises SettingsError.
    """
    path = environ.get(_ENVIRONMENT_FILE)
    if not path or not Path(path).exists():
        return environ
    try:
        given = dict(environment_file.read(Path(path)))
        options = flags.parse(shlex.split(given.pop("OPTS", "")))
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SettingsError(f"{path}: OPTS: {error}") from error
    known = {**given, **environ}
    return {**known, **flags.as_environment(options, known), **environ}


def _duration(text: str) -> timedelta:
    found = re.fullmatch(r"([0-9]{1,6})([smhd])", text)
    if not found or not int(found.group(1)):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a time: allowed is a whole number from 1 to 999999 and s, m, h or d,"
            " such as 30m"
        )
    return timedelta(**{_UNITS[found.group(2)]: int(found.group(1))})


def _positive(text: str) -> float:
    try:
        return parse_seconds(0.1, 3600)(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line each, as a journal wants them."""

    def error(self, message: str) -> NoReturn:
        """Says what is wrong and ends the program."""
        program = self.prog.partition(" ")[0]
        code = self.get_default("wrong_call") or WRONG_CALL
        self.exit(code, f"{program}: {message}: see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="container-healthcheck",
        description="Tells a gateway whether the container of each app on this host serves.",
    )
    _add_version(parser)
    subparsers = parser.add_subparsers(required=True, metavar="command")
    _add_serve(subparsers)
    _add_check(subparsers)
    _add_list(subparsers)
    _add_changes(subparsers)
    _add_drain(subparsers)
    _add_undrain(subparsers)
    _add_completion(subparsers)
    return parser


def _example(command: str) -> str:
    return f"Example: {command}"


def _add_serve(subparsers: Any) -> None:
    serve = subparsers.add_parser(
        "serve",
        help="run the service",
        allow_abbrev=False,
        description="Runs the service. Every flag may have one dash or two, and overrides the"
        " environment variable CONTAINER_HEALTHCHECK_….",
        epilog=_example("container-healthcheck serve -port 4246 -ngx-port 8010"),
    )
    serve.set_defaults(run=_serve, wrong_call=WRONG_CALL)
    flags.add_flags(serve)
    _add_version(serve)


def _add_version(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-version", "--version", action="version", version=f"container-healthcheck {__version__}"
    )


def _add_check(subparsers: Any) -> None:
    check = subparsers.add_parser(
        "check",
        help="whether an app is healthy here: exit 0, 2 if not, 3 if unknown",
        epilog=_example("container-healthcheck check bk_iam"),
    )
    check.set_defaults(run=_asking("check"), wrong_call=UNKNOWN)
    completion.complete_apps(check.add_argument("app_code"))
    check.add_argument("--direct", action="store_true", help="ask Docker itself, not the service")
    _add_question(check)


def _add_list(subparsers: Any) -> None:
    overview = subparsers.add_parser(
        "list",
        help="all apps: exit 0 if all are healthy, 2 if not, 3 if unknown",
        epilog=_example("container-healthcheck list --json"),
    )
    overview.set_defaults(run=_asking("list_apps"), wrong_call=UNKNOWN)
    _add_question(overview)


def _add_changes(subparsers: Any) -> None:
    changes = subparsers.add_parser(
        "changes",
        help="the latest changes of a verdict, newest first",
        epilog=_example("container-healthcheck changes bk_iam"),
    )
    changes.set_defaults(run=_asking("changes"), wrong_call=WRONG_CALL)
    completion.complete_apps(changes.add_argument("app_code", nargs="?", help="of this app only"))
    _add_question(changes)


def _add_question(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the service's answer, JSON")
    _add_service(parser)


def _add_drain(subparsers: Any) -> None:
    drain = subparsers.add_parser(
        "drain",
        help="take an app, or the whole host, out on purpose",
        epilog=_example("container-healthcheck drain bk_iam --reason 'disk change' --for 30m"),
    )
    drain.set_defaults(run=_asking("drain"), wrong_call=WRONG_CALL)
    _add_target(drain)
    drain.add_argument(
        "--reason", default="", metavar="TEXT", help="why: shown in answers and in the log"
    )
    drain.add_argument(
        "--for",
        dest="duration",
        type=_duration,
        metavar="TIME",
        help="ends by itself: 90s, 30m, 2h, 1d",
    )
    _add_service(drain)


def _add_undrain(subparsers: Any) -> None:
    undrain = subparsers.add_parser(
        "undrain", help="end a drain", epilog=_example("container-healthcheck undrain bk_iam")
    )
    undrain.set_defaults(run=_asking("undrain"), wrong_call=WRONG_CALL)
    _add_target(undrain)
    _add_service(undrain)


def _add_completion(subparsers: Any) -> None:
    script = subparsers.add_parser(
        "completion",
        help="print a script that completes commands, flags and apps in a shell",
        epilog=_example("source <(container-healthcheck completion bash)"),
    )
    script.set_defaults(run=_print_completion, wrong_call=WRONG_CALL)
    script.add_argument("shell", choices=completion.SHELLS, help="the shell")


def _print_completion(parsed: argparse.Namespace, _: Mapping[str, str]) -> int:
    print(completion.script(_parser(), parsed.shell))
    return 0


def _add_target(parser: argparse.ArgumentParser) -> None:
    target = parser.add_mutually_exclusive_group(required=True)
    completion.complete_apps(target.add_argument("app_code", nargs="?", help="the app"))
    target.add_argument("--all", action="store_true", help="the whole host")


def _add_service(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--url",
        help="where the service answers, its prefix included:"
        " http://10.0.0.1:4246/container-healthcheck",
    )
    parser.add_argument(
        "--timeout",
        type=_positive,
        default=5.0,
        metavar="S",
        help="time-out in seconds (default: %(default)g)",
    )
