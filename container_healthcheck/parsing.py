"""What the text of a setting may be. Every parser raises ValueError, saying what is allowed."""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar
from urllib.parse import SplitResult, urlsplit

from container_healthcheck.model.names import PLACEHOLDER, is_app_code

NOT_PROBED = "-"

T = TypeVar("T")
Parser = Callable[[str], T]

_LEVELS = {"warn": "warning"} | {
    level: level for level in ("debug", "info", "warning", "error", "critical")
}
_HOST = re.compile(r"[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*")
_BIND_FORM = "allowed is host:port, such as 127.0.0.1:4246 or [::1]:4246"
_ENGINE_SCHEMES = ("tcp", "http", "https")
_ENGINE_FORM = "allowed are unix:///path, tcp://host:port, http://host:port, https://host:port"


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
    return parse_whole(1, 65535)(text)


def parse_whole(least: int, most: int) -> Parser[int]:
    """Makes a parser of whole numbers between these."""

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


def parse_prefix(text: str) -> str:
    """A path of URLs, without the slash at its end."""
    if not re.fullmatch(r"/|(/[A-Za-z0-9_.~-]+)+/?", text):
        raise ValueError("allowed is a path such as /container-healthcheck, or /")
    return text.rstrip("/")


def parse_level(text: str) -> str:
    """The name of a log level."""
    try:
        return _LEVELS[text.lower()]
    except KeyError:
        raise ValueError(f"allowed are {', '.join(sorted(_LEVELS))}") from None


def parse_probe_url(text: str) -> str:
    """An http:// address with the placeholder once in its path, or nothing."""
    if not text:
        return ""
    parts = _http_address(text)
    if (
        parts is None
        or not _is_plain_host(parts.hostname or "")
        or text.count(PLACEHOLDER) != 1
        or PLACEHOLDER not in parts.path
    ):
        raise ValueError(
            f"allowed is an http:// address with {PLACEHOLDER} once in its path, such as"
            f" http://127.0.0.1:8010/o/{PLACEHOLDER}/"
        )
    return text


def parse_service_url(text: str) -> str:
    """Where a service answers: any host that a name can be found for, and a path alone."""
    parts = _http_address(text)
    if parts is None or parts.query or parts.fragment:
        raise ValueError(
            "allowed is an http:// address, such as http://127.0.0.1:4246/container-healthcheck"
        )
    return text


def _http_address(text: str) -> SplitResult | None:
    try:
        parts = urlsplit(text)
        is_address = parts.scheme == "http" and parts.hostname and parts.port != 0
    except ValueError:
        return None
    return parts if is_address and re.fullmatch(r"[!-~]+", text) else None


def _is_plain_host(text: str) -> bool:
    return ":" in text or bool(_HOST.fullmatch(text))


def parse_probe_paths(text: str) -> Mapping[str, str]:
    """`app_code=/path,…`; the path `-` means no probe."""
    paths = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        app_code, _, path = item.partition("=")
        if not is_app_code(app_code) or not re.fullmatch(r"/[!-~]*|-", path):
            raise ValueError(
                f"{item!r} is not app_code=/path (or app_code={NOT_PROBED} for no probe)"
            )
        paths[app_code] = path
    return MappingProxyType(paths)


def parse_folder(text: str) -> Path:
    """An absolute path."""
    if not text.startswith("/"):
        raise ValueError("allowed is an absolute path")
    return Path(text)


def parse_optional_folder(text: str) -> Path | None:
    """An absolute path, or nothing."""
    return parse_folder(text) if text else None


def parse_engine_url(text: str) -> str:
    """The engine's address, or nothing for Docker's own default."""
    scheme, _, rest = text.partition("://")
    if text and not (scheme == "unix" and re.fullmatch(r"/[!-~]+", rest)):
        try:
            parse_bind(rest.rstrip("/") if scheme in _ENGINE_SCHEMES else "")
        except ValueError:
            raise ValueError(_ENGINE_FORM) from None
    return text
