"""The flags of `serve`: those of the Go tool 1.0.x, and one for each setting.

A flag is another way to write an environment variable: what comes out is an environment, and
settings.py alone says what its values mean. Each flag may have one dash or two.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NoReturn

from container_healthcheck.parsing import Parser, T, parse_bind, parse_port
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
        _add(parser, setting.name.replace("_", "-"), meaning)
    _add(parser, "port", "port to listen on, at the address of --bind")
    _add(parser, "ngx-port", "probe each app at http://127.0.0.1:<port>/o/<app_code>/")
    _add(parser, "level", "the same as --log-level")
    _add(parser, "logpath", "the same as --log-dir")


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
        listening = _value("-bind" if values.get(name) else name, bind, parse_bind)
        values[name] = str(replace(listening, port=_value("-port", port, parse_port)))
    probe_url = environment_name("probe_url")
    if ngx_port is not None and not values.get(probe_url, environ.get(probe_url)):
        checked = _value("-ngx-port", ngx_port, parse_port)
        values[probe_url] = f"http://127.0.0.1:{checked}/o/{{app_code}}/"
    return values


class _Quiet(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raises ValueError."""
        raise ValueError(message)


def _add(parser: argparse.ArgumentParser, flag: str, meaning: str) -> None:
    parser.add_argument(f"-{flag}", f"--{flag}", metavar="VALUE", help=meaning.replace("%", "%%"))


def _value(name: str, text: str, parser: Parser[T]) -> T:
    try:
        return parser(text)
    except ValueError as error:
        raise refusal(name, text, error) from error
