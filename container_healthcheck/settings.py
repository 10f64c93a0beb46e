"""The settings, all of them, in one place: names, defaults, what is allowed and what they mean.

They come from environment variables whose names begin with `CONTAINER_HEALTHCHECK_`; the command
line turns its flags into the same variables. The engine's own address comes from Docker's usual
`DOCKER_HOST`, `DOCKER_TLS_VERIFY` and `DOCKER_CERT_PATH`.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from container_healthcheck.model.names import PLACEHOLDER, NamePattern
from container_healthcheck.parsing import (
    NOT_PROBED,
    Bind,
    Parser,
    T,
    parse_bind,
    parse_engine_url,
    parse_folder,
    parse_level,
    parse_optional_folder,
    parse_prefix,
    parse_probe_paths,
    parse_probe_url,
    parse_seconds,
    parse_whole,
)

ENVIRONMENT_PREFIX = "CONTAINER_HEALTHCHECK_"
LOG_FILE = "container-healthcheck.log"
ACCESS_LOG_FILE = "access.log"


class SettingsError(ValueError):
    """A setting is wrong. The text is one line: which, its value, and what is allowed."""


def _setting(default: T, parse: Parser[T], meaning: str) -> T:
    metadata = {"parse": parse, "meaning": meaning, "default": default}
    value: T = field(default_factory=lambda: default, metadata=metadata)
    return value


@dataclass(frozen=True, slots=True)
class Settings:
    """What the service does, read once at the start. Times are in seconds."""

    bind: Bind = _setting(Bind("127.0.0.1", 4246), parse_bind, "address to listen on, host:port")
    prefix: str = _setting("/container-healthcheck", parse_prefix, "path before each answer's path")
    workers: int = _setting(2, parse_whole(1, 64), "number of worker processes")
    docker_timeout: float = _setting(
        3.0, parse_seconds(0.1, 60), "longest time one question to the engine may take, s"
    )
    resync_interval: float = _setting(
        10.0, parse_seconds(0.5, 300), "time from one full list of the containers to the next, s"
    )
    stale_after: float = _setting(
        15.0,
        parse_seconds(1, 600),
        "age at which an unconfirmed snapshot is no longer answered from, s",
    )
    name_pattern: NamePattern = _setting(
        NamePattern(r"{app_code}(-\d+|\d{10})?"),
        NamePattern,
        "regular expression of an app's container names, with {app_code} in it",
    )
    probe_url: str = _setting(
        "", parse_probe_url, "address that is probed, with {app_code}; empty: off"
    )
    probe_interval: float = _setting(
        5.0, parse_seconds(0.2, 300), "time from one probe of an app to the next, s"
    )
    probe_timeout: float = _setting(3.0, parse_seconds(0.1, 60), "longest time a probe may take, s")
    probe_fall: int = _setting(2, parse_whole(1, 100), "failed probes in a row that count")
    probe_rise: int = _setting(
        1, parse_whole(1, 100), "passed probes in a row that make an app healthy again"
    )
    probe_paths: Mapping[str, str] = _setting(
        MappingProxyType({}),
        parse_probe_paths,
        "other paths for some apps, app_code=/path,…; app_code=- for no probe",
    )
    state_dir: Path = _setting(
        Path("/var/lib/container-healthcheck"),
        parse_folder,
        "folder of the drain marks and of the state file",
    )
    log_level: str = _setting(
        "info", parse_level, "debug (with access log), info, warning (or warn), error or critical"
    )
    log_dir: Path | None = _setting(
        None, parse_optional_folder, "folder of log files; empty: stderr"
    )
    docker_host: str = ""
    docker_tls_verify: bool = False
    docker_cert_path: str = ""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Settings:
        """The settings in `environ`.

        Raises SettingsError for a value that is not allowed and for a name that does not exist.
        """
        _reject_unknown(environ)
        values = {
            setting.name: _parse(setting, environ[name])
            for setting in documented_settings()
            if (name := environment_name(setting.name)) in environ
        }
        try:
            engine_url = parse_engine_url(environ.get("DOCKER_HOST", ""))
        except ValueError as error:
            raise refusal("DOCKER_HOST", environ["DOCKER_HOST"], error) from error
        settings = cls(
            **values,
            docker_host=engine_url,
            docker_tls_verify=bool(environ.get("DOCKER_TLS_VERIFY")),
            docker_cert_path=environ.get("DOCKER_CERT_PATH", ""),
        )
        settings._check_staleness()
        return settings

    def probe_target(self, app_code: str) -> str | None:
        """The URL that is probed for an app, or None when it is not to be probed."""
        path = self.probe_paths.get(app_code)
        if not self.probe_url or path == NOT_PROBED:
            return None
        if path is None:
            return self.probe_url.replace(PLACEHOLDER, app_code)
        return urlsplit(self.probe_url)._replace(path=path, query="").geturl()

    def _check_staleness(self) -> None:
        least = self.resync_interval + self.docker_timeout
        if self.stale_after < least:
            raise SettingsError(
                f"{environment_name('stale_after')}: {self.stale_after:g} is not allowed: it must"
                f" be at least RESYNC_INTERVAL + DOCKER_TIMEOUT, {least:g}"
            )


def log_files(log_level: str) -> list[str]:
    """The files in LOG_DIR at this LOG_LEVEL."""
    return [LOG_FILE, ACCESS_LOG_FILE] if log_level == "debug" else [LOG_FILE]


def documented_settings() -> list[Field[Any]]:
    """The settings a user can make, in the order of the documentation."""
    return [setting for setting in fields(Settings) if "parse" in setting.metadata]


def shown(value: object) -> str:
    """A setting's default as its user would write it; `empty` for none."""
    if isinstance(value, float):
        return f"{value:g}"
    return str(value or "empty")


def environment_name(setting: str) -> str:
    """The environment variable of a setting."""
    return ENVIRONMENT_PREFIX + setting.upper()


def _parse(setting: Field[Any], text: str) -> Any:
    try:
        return setting.metadata["parse"](text)
    except ValueError as error:
        raise refusal(environment_name(setting.name), text, error) from error


def refusal(name: str, text: str, error: ValueError) -> SettingsError:
    """The error that says of a setting or a flag why its value is not allowed."""
    return SettingsError(f"{name}: {text!r} is not allowed: {error}")


def _reject_unknown(environ: Mapping[str, str]) -> None:
    known = [setting.name.upper() for setting in documented_settings()]
    for name in environ:
        own = name.removeprefix(ENVIRONMENT_PREFIX)
        if own != name and own not in known:
            near = [environment_name(each) for each in difflib.get_close_matches(own, known, n=1)]
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            raise SettingsError(f"{name}: no such setting: {hint}")


def from_process_environment() -> Settings:
    """The settings in this process's environment. Raises SettingsError."""
    return Settings.from_environment(os.environ)
