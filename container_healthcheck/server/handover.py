"""Keeps the listening socket open with systemd while the service restarts.

Once it listens, the service hands the socket to systemd (FileDescriptorStoreMax= in the unit),
which hands it back at the next start, after a crash too. Clients that connect in between wait for a
moment instead of being refused. Without systemd nothing of this happens.
"""

from __future__ import annotations

import array
import os
import socket
from collections.abc import MutableMapping

from container_healthcheck.settings import Bind

_FIRST = 3


def store(listener: socket.socket) -> None:
    """Hands a listening socket to systemd. Without systemd, does nothing."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [listener.fileno()]))
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifier:
            notifier.connect("\0" + address[1:] if address.startswith("@") else address)
            notifier.sendmsg([b"FDSTORE=1"], [rights])
    except OSError:
        pass  # the next start binds the address anew


def takes_over(bind: Bind, environ: MutableMapping[str, str]) -> bool:
    """True when systemd hands a socket of this address back, which gunicorn then uses.

    Sockets of other addresses (the setting has changed) are ended, and `environ` tells of them no
    more; systemd drops a socket that is ended.
    """
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return False
    count = int(environ.get("LISTEN_FDS", "0"))
    handed = [socket.socket(fileno=_FIRST + number) for number in range(count)]
    if len(handed) == 1 and _is_bound_to(handed[0], bind):
        handed[0].detach()
        return True
    for listener in handed:
        try:
            listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        listener.close()
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        environ.pop(name, None)
    return False


def _is_bound_to(listener: socket.socket, bind: Bind) -> bool:
    try:
        addresses = socket.getaddrinfo(
            bind.host, bind.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        return listener.getsockname()[:2] in [address[:2] for *_, address in addresses]
    except OSError:
        return False
