"""The settings, all of them, in one place: names, defaults, what is allowed and what they mean.

They come from environment variables whose names begin with `CONTAINER_HEALTHCHECK_`; the command
line turns its flags into the same variables. The engine's own address comes from Docker's usual
`DOCKER_HOST`, `DOCKER_TLS_VERIFY` and `DOCKER_CERT_PATH`.
"""

from __future__ import annotations

import difflib
import ipaddress
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar
from urllib.parse import urlsplit

from container_healthcheck.model.names import PLACEHOLDER, NamePattern, is_app_code

ENVIRONMENT_PREFIX = "CONTAINER_HEALTHCHECK_"
NOT_PROBED = "-"
LOG_FILE = "container-healthcheck.log"
ACCESS_LOG_FILE = "access.log"

T = TypeVar("T")
Parser = Callable[[str], T]

_LEVELS = {"warn": "warning"} | {
    level: level for level in ("debug", "info", "warning", "error", "critical")
}
_HOST = re.compile(r"[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*")
_BIND_FORM = "allowed is host:port, such as 127.0.0.1:4246 or [::1]:4246"
_ENGINE_SCHEMES = ("tcp", "http", "https")
_ENGINE_FORM = "allowed are unix:///path, tcp://host:port, http://host:port, https://host:port"


class SettingsError(ValueError):
    """A setting is wrong. The text is one line: which, its value, and what is allowed."""


@dataclass(frozen=True, slots=True)
class Bind:
    """Where to listen: a host (or address) and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_bind(text: str) -> Bind:
    """`host:port`, with the host of an IPv6 address in brackets."""
    host, colon, port = text.rpartition(":")
    if not colon or not host:
        raise ValueError(_BIND_FORM)
    if host.startswith("["):
        host = _ipv6(host)
    elif not _HOST.fullmatch(host):
        raise ValueError(_BIND_FORM)
    return Bind(host, parse_port(port))


def _ipv6(text: str) -> str:
    try:
        return str(ipaddress.IPv6Address(text.removeprefix("[").removesuffix("]")))
    except ValueError:
        raise ValueError(_BIND_FORM) from None


def parse_port(text: str) -> int:
    """A TCP port."""
    return _whole(1, 65535)(text)


def _whole(least: int, most: int) -> Parser[int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text) or not least <= int(text) <= most:
            raise ValueError(f"allowed is a whole number from {least} to {most}")
        return int(text)

    return parse


def parse_seconds(least: float, most: float) -> Parser[float]:
    """Makes a parser of numbers of seconds between these."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise ValueError(f"allowed is a number of seconds from {least:g} to {most:g}")
        return value

    return parse


def _prefix(text: str) -> str:
    if not re.fullmatch(r"/|(/[A-Za-z0-9_.~-]+)+/?", text):
        raise ValueError("allowed is a path such as /container-healthcheck, or /")
    return text.rstrip("/")


def _level(text: str) -> str:
    try:
        return _LEVELS[text.lower()]
    except KeyError:
        raise ValueError(f"allowed are {', '.join(sorted(_LEVELS))}") from None


def _probe_url(text: str) -> str:
    if not text:
        return ""
    if text.count(PLACEHOLDER) != 1 or PLACEHOLDER not in urlsplit(text).path:
        raise ValueError(f"allowed is an http:// address with {PLACEHOLDER} once in its path")
    _require_plain_http(text)
    return text


def _require_plain_http(url: str) -> None:
    parts = urlsplit(url)
    host = parts.hostname or ""
    is_host = _HOST.fullmatch(host) or ":" in host
    if parts.scheme != "http" or not is_host or not re.fullmatch(r"[!-~]+", url):
        raise ValueError(
            "allowed is an http:// address, such as http://127.0.0.1:8010/o/{app_code}/"
        )
    if parts.port is not None:
        parse_port(str(parts.port))


def _probe_paths(text: str) -> Mapping[str, str]:
    paths = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        app_code, _, path = item.partition("=")
        if not is_app_code(app_code) or not re.fullmatch(r"/[!-~]*|-", path):
            raise ValueError(
                f"{item!r} is not app_code=/path (or app_code={NOT_PROBED} for no probe)"
            )
        paths[app_code] = path
    return MappingProxyType(paths)


def _folder(text: str) -> Path:
    if not text.startswith("/"):
        raise ValueError("allowed is an absolute path")
    return Path(text)


def _optional_folder(text: str) -> Path | None:
    return _folder(text) if text else None


def _engine_url(text: str) -> str:
    scheme, _, rest = text.partition("://")
    if text and not (scheme == "unix" and re.fullmatch(r"/[!-~]+", rest)):
        try:
            parse_bind(rest.rstrip("/") if scheme in _ENGINE_SCHEMES else "")
        except ValueError:
            raise ValueError(_ENGINE_FORM) from None
    return text


def _setting(default: T, parse: Parser[T], meaning: str) -> T:
    metadata = {"parse": parse, "meaning": meaning, "default": default}
    value: T = field(default_factory=lambda: default, metadata=metadata)
    return value


@dataclass(frozen=True, slots=True)
class Settings:
    """What the service does, read once at the start. Times are in seconds."""

    bind: Bind = _setting(Bind("127.0.0.1", 4246), parse_bind, "address to listen on, host:port")
    prefix: str = _setting("/container-healthcheck", _prefix, "path before every answer's path")
    workers: int = _setting(2, _whole(1, 64), "number of worker processes")
    docker_timeout: float = _setting(
        3.0, parse_seconds(0.1, 60), "longest time one question to the engine may take, s"
    )
    resync_interval: float = _setting(
        10.0, parse_seconds(0.5, 300), "time from one full list of the containers to the next, s"
    )
    stale_after: float = _setting(
        15.0, parse_seconds(1, 600), "age from which an unconfirmed picture is not answered from, s"
    )
    name_pattern: NamePattern = _setting(
        NamePattern(r"{app_code}(-\d+|\d{10})?"),
        NamePattern,
        "regular expression of an app's container names, with {app_code} in it",
    )
    probe_url: str = _setting("", _probe_url, "address of the probe, with {app_code}; empty: off")
    probe_interval: float = _setting(
        5.0, parse_seconds(0.2, 300), "time from one probe of an app to the next, s"
    )
    probe_timeout: float = _setting(3.0, parse_seconds(0.1, 60), "longest time a probe may take, s")
    probe_fall: int = _setting(2, _whole(1, 100), "failed probes in a row that count")
    probe_paths: Mapping[str, str] = _setting(
        MappingProxyType({}),
        _probe_paths,
        "other paths for some apps, app_code=/path,…; app_code=- for no probe",
    )
    state_dir: Path = _setting(
        Path("/var/lib/container-healthcheck"), _folder, "folder of the drain marks"
    )
    log_level: str = _setting("info", _level, "debug (with access log), info, warning or error")
    log_dir: Path | None = _setting(None, _optional_folder, "folder of log files; empty: stderr")
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
            engine_url = _engine_url(environ.get("DOCKER_HOST", ""))
        except ValueError as error:
            raise _refusal("DOCKER_HOST", environ["DOCKER_HOST"], error) from error
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
        raise _refusal(environment_name(setting.name), text, error) from error


def _refusal(name: str, text: str, error: ValueError) -> SettingsError:
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
