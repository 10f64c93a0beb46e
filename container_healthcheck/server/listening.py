"""The address to listen on: whether it can be had, and whether a socket has it already."""

from __future__ import annotations

import errno
import socket
import time
from typing import Any

from container_healthcheck.parsing import Bind

# How long a predecessor may take to let go of the port, in seconds.
_PORT_WAIT = 3.0
_ELSEWHERE = "choose another address (BIND, or the flags -bind and -port)"
_ADVICE = {
    errno.EADDRINUSE: f"another program listens there: stop it, or {_ELSEWHERE}",
    errno.EACCES: "not permitted: use a port above 1023",
}


def port_problem(bind: Bind) -> str | None:
    """Why the address cannot be listened on; it may take a moment until a predecessor lets go."""
    give_up = time.monotonic() + _PORT_WAIT
    while True:
        try:
            _try_to_listen(bind)
        except OSError as error:
            if error.errno == errno.EADDRINUSE and time.monotonic() < give_up:
                time.sleep(0.1)
                continue
            advice = _ADVICE.get(error.errno or 0, _ELSEWHERE)
            return f"cannot listen on {bind}: {error.strerror}: {advice}"
        return None


def is_bound_to(listener: socket.socket, bind: Bind) -> bool:
    """True for a socket that has this address."""
    try:
        addresses = [address[:2] for *_, address in _addresses(bind)]
        return listener.getsockname()[:2] in addresses
    except OSError:
        return False


def _try_to_listen(bind: Bind) -> None:
    family, kind, protocol, _, address = _addresses(bind)[0]
    with socket.socket(family, kind, protocol) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()


def _addresses(bind: Bind) -> list[Any]:
    return socket.getaddrinfo(
        bind.host, bind.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
