"""One probe: asks an app through the local nginx, as a user's request would come, and judges.

What fails is what a user would see as the app being gone: no connection, no answer in time, 502,
503, 504, and the 404 page that the APPO's nginx makes itself when the app has no pid file. Any
other answer passes, an error page of the app included.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import time
from functools import lru_cache
from urllib.parse import urlsplit

from container_healthcheck import __version__

LONGEST_HEAD = 64 * 1024
# nginx's own error page has about 150 bytes, and up to 500 more of padding for old browsers.
LONGEST_PAGE = 4 * 1024

_GATEWAY_ERRORS = {502: "Bad Gateway", 503: "Service Unavailable", 504: "Gateway Time-out"}
_STATUS_LINE = re.compile(rb"HTTP/\d\.\d (\d{3})(?: |\r?\n)")
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_OWN_404 = re.compile(
    rb"<html>\s*<head><title>404 Not Found</title></head>\s*<body[^>]*>\s*"
    rb"<center><h1>404 Not Found</h1></center>\s*"
    rb"<hr><center>(?:nginx|openresty|tengine)[^<]*</center>",
    re.IGNORECASE,
)


def probe(url: str, timeout: float) -> str | None:
    """Asks `url` (http only) once; None when it passes, else what was seen, in a few words.

    Takes at most `timeout` seconds, however slowly the answer comes, when the host is an address;
    the look-up of a name takes what it takes. Follows no redirect.
    """
    parts = urlsplit(url)
    host, port = str(parts.hostname), parts.port or 80
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    request = (
        f"GET {target} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        f"User-Agent: container-healthcheck/{__version__}\r\n"
        "Accept: */*\r\nConnection: close\r\n\r\n"
    )
    deadline = time.monotonic() + timeout
    try:
        with _connect(host, port, timeout) as connection:
            seen = _ask(_Reader(connection, deadline), request.encode("ascii"))
    except TimeoutError:
        seen = f"no answer within {timeout:g} s"
    except (OSError, UnicodeError) as error:
        seen = getattr(error, "strerror", None) or str(error)
    return f"{seen} from {url}" if seen else None


def _connect(host: str, port: int, timeout: float) -> socket.socket:
    family = _literal_family(host)
    if family is None:
        return socket.create_connection((host, port), timeout=timeout)
    # Without a look-up, which gevent gives to another thread at ten times the cost of the rest.
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        connection.connect((host, port))
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


class _Reader:
    """Reads from a socket until a deadline, which no drip of bytes can move."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline
        self.data = b""

    def send(self, data: bytes) -> None:
        self._limit()
        self._connection.sendall(data)

    def more(self) -> bool:
        """Reads what there is; False at the end of the stream."""
        self._limit()
        chunk = self._connection.recv(16 * 1024)
        self.data += chunk
        return bool(chunk)

    def _limit(self) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)


def _ask(reader: _Reader, request: bytes) -> str | None:
    reader.send(request)
    while not (end := _HEAD_END.search(reader.data)):
        if len(reader.data) > LONGEST_HEAD or not reader.more():
            return _not_http(reader.data)
    found = _STATUS_LINE.match(reader.data)
    if not found:
        return _not_http(reader.data)
    status = int(found.group(1))
    if status == 404 and _is_own_404(reader, end.end()):
        return "nginx's own 404 page (the app has no pid file)"
    return f"{status} {_GATEWAY_ERRORS[status]}" if status in _GATEWAY_ERRORS else None


def _is_own_404(reader: _Reader, start: int) -> bool:
    try:
        while len(reader.data) < start + LONGEST_PAGE and reader.more():
            if _OWN_404.search(reader.data, start):
                return True
    except TimeoutError:
        # The app answered, and is slow with its page: nginx's own comes in one piece.
        pass
    return _OWN_404.search(reader.data, start) is not None


def _not_http(data: bytes) -> str:
    return "an answer that is not HTTP" if data else "connection closed without an answer"
