"""One probe: asks an app through the local nginx, as a user's request would come.

What fails is what a user would see as the app being gone: no connection, no answer in time, 502,
503, 504, and the 404 page that the APPO's nginx makes itself when the app has no pid file. Any
other answer passes, an error page of the app included.
"""

from __future__ import annotations

import http.client
import io
import ipaddress
import re
import socket
import time
from contextlib import suppress
from functools import lru_cache
from urllib.parse import urlsplit

from container_healthcheck import __version__
from container_healthcheck.model.probes import (
    CLOSED,
    GATEWAY_ERRORS,
    NO_PID_FILE,
    NOT_HTTP,
    TIMEOUT,
)

# nginx's own error page has about 150 bytes, and up to 500 more of padding for old browsers.
LONGEST_PAGE = 4 * 1024

_OWN_404 = re.compile(
    rb"<html>\s*<head><title>404 Not Found</title></head>\s*<body[^>]*>\s*"
    rb"<center><h1>404 Not Found</h1></center>\s*"
    rb"<hr><center>(?:nginx|openresty|tengine)[^<]*</center>",
    re.IGNORECASE,
)


# An answer of which only the status counts, with a head that is whole.
_PLAIN = re.compile(rb"HTTP/1\.[01] (?!404)([2-5]\d\d)[ \r].*?\r\n\r\n", re.DOTALL)


def probe(url: str, timeout: float) -> str | None:
    """Asks `url` (http only) once; None when it passes, else what was seen, in a few words.

    Takes at most `timeout` seconds, however slowly the answer comes, when the host is an address;
    the look-up of a name takes what it takes. Follows no redirect.
    """
    host, port, request = _request(url)
    deadline = time.monotonic() + timeout
    try:
        with _connect(host, port, timeout) as connection:
            connection.sendall(request.encode("ascii"))
            seen = _evaluate(_Limited(connection, deadline))
    except TimeoutError:
        seen = f"{TIMEOUT} {timeout:g} s"
    except http.client.RemoteDisconnected:
        seen = CLOSED
    except http.client.HTTPException:
        seen = NOT_HTTP
    except (OSError, UnicodeError) as error:
        seen = getattr(error, "strerror", None) or str(error)
    return f"{seen} from {url}" if seen else None


@lru_cache(maxsize=4096)
def _request(url: str) -> tuple[str, int, str]:
    """Host, port and request of a URL: the same ones come again and again."""
    parts = urlsplit(url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    request = (
        f"GET {target} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        f"User-Agent: container-healthcheck/{__version__}\r\n"
        "Accept: */*\r\nConnection: close\r\n\r\n"
    )
    return str(parts.hostname), parts.port or 80, request


def _connect(host: str, port: int, timeout: float) -> socket.socket:
    family = _literal_family(host)
    if family is None:
        return socket.create_connection((host, port), timeout=timeout)
    # Without a look-up, which gevent gives to another thread at ten times the cost of the rest.
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        # What sends next waits until it is connected, or learns why it is not: one wait less.
        with suppress(BlockingIOError):
            connection.connect((host, port))
        connection.settimeout(timeout)
    except BaseException:
        connection.close()
        raise
    return connection


@lru_cache(maxsize=16)
def _literal_family(host: str) -> socket.AddressFamily | None:
    """The family of a host that is an address and needs no look-up."""
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        return None
    return socket.AF_INET if version == 4 else socket.AF_INET6


class _Limited(io.RawIOBase):
    """A connection that can be read until a deadline, which no drip can move."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline
        self.has_ended = False

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Reads what there is. Raises TimeoutError at the deadline."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        count = self._connection.recv_into(buffer)
        self.has_ended = not count
        return count


class _Answer(io.BufferedReader):
    """What http.client reads from."""

    def makefile(self, _: str) -> _Answer:
        """Itself: http.client takes it for a socket."""
        return self


def _evaluate(connection: _Limited) -> str | None:
    answer = _Answer(connection)
    # http.client's reading of all headers would be a sixth of what an idle service costs.
    if plain := _PLAIN.match(answer.peek()):
        return _seen_of(int(plain[1]))
    with http.client.HTTPResponse(answer, method="GET") as response:  # type: ignore[arg-type]
        response.begin()
        # http.client takes a head that breaks off for a whole one.
        if connection.has_ended:
            raise http.client.HTTPException
        if response.status == 404 and _is_own_404(response):
            return NO_PID_FILE
        return _seen_of(response.status)


def _seen_of(status: int) -> str | None:
    return f"{status} {GATEWAY_ERRORS[status]}" if status in GATEWAY_ERRORS else None


def _is_own_404(response: http.client.HTTPResponse) -> bool:
    page = b""
    try:
        while len(page) < LONGEST_PAGE and (part := response.read1(LONGEST_PAGE)):
            page += part
            if _OWN_404.search(page):
                return True
    except (OSError, http.client.HTTPException):
        # The app answered, and is slow with its page or breaks off: nginx's own is one piece.
        pass
    return False
