"""The flags of `serve`: those of the Go tool 1.0.x, and one for each setting.

A flag is another way to write an environment variable: what comes out is an environment, and
settings.py alone says what its values mean. Each flag may have one dash or two.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn

from container_healthcheck.parsing import Parser, parse_bind, parse_port
from container_healthcheck.settings import (
    Settings,
    documented_settings,
    environment_name,
    refusal,
    shown,
)

# Flags of the Go tool that are settings under another name.
_GO_NAMES = {"level": "log_level", "logpath": "log_dir"}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declares the flags."""
    for setting in documented_settings():
        default = shown(setting.metadata["default"])
        meaning = f"{setting.metadata['meaning']} (default: {default})"
        parse = setting.metadata["parse"]
        flag = setting.name.replace("_", "-")
        _add(parser, flag, parse, meaning)
        for name, known in _GO_NAMES.items():
            if known == setting.name:
                _add(parser, name, parse, f"the same as --{flag}")
    _add(parser, "port", parse_port, "port to listen on, at the address of --bind")
    _add(parser, "ngx-port", parse_port, "probe each app at http://127.0.0.1:<port>/o/<app_code>/")


def parse(flags: Sequence[str]) -> argparse.Namespace:
    """The flags that somebody has written down. Raises ValueError, and ends no process."""
    parser = _Quiet(add_help=False, allow_abbrev=False)
    add_flags(parser)
    return parser.parse_args(flags)


def as_environment(parsed: argparse.Namespace, environ: Mapping[str, str]) -> dict[str, str]:
    """What the flags say, as environment variables, beside those in `environ`.

    Raises SettingsError.
    """
    given = {name: value for name, value in vars(parsed).items() if isinstance(value, str)}
    port, ngx_port = given.pop("port", None), given.pop("ngx_port", None)
    values = {environment_name(_GO_NAMES.get(name, name)): text for name, text in given.items()}
    if port is not None:
        name = environment_name("bind")
        bind = values.get(name) or environ.get(name, str(Settings().bind))
        try:
            values[name] = str(replace(parse_bind(bind), port=int(port)))
        except ValueError as error:
            raise refusal(name, bind, error) from error
    probe_url = environment_name("probe_url")
    if ngx_port is not None and not values.get(probe_url, environ.get(probe_url)):
        values[probe_url] = f"http://127.0.0.1:{ngx_port}/o/{{app_code}}/"
    return values


class _Quiet(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raises ValueError."""
        raise ValueError(message)


def _checked(parse: Parser[Any]) -> Callable[[str], str]:
    """Makes a `type` for argparse that leaves the text as it is, if `parse` takes it."""

    def check(text: str) -> str:
        try:
            parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r} is not allowed: {error}") from error
        return text

    return check


def _add(parser: argparse.ArgumentParser, flag: str, parse: Parser[Any], meaning: str) -> None:
    parser.add_argument(
        f"-{flag}",
        f"--{flag}",
        type=_checked(parse),
        metavar="VALUE",
        help=meaning.replace("%", "%%"),
    )
