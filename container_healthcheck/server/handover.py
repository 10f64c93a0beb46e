"""Keeps the listening socket open with systemd while the service restarts.

Once it listens, the service hands the socket to systemd (FileDescriptorStoreMax= in the unit),
which hands it back at the next start, after a crash too. Clients that connect in between wait for a
moment instead of being refused. Without systemd nothing of this happens.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping

from container_healthcheck.parsing import Bind
from container_healthcheck.server.listening import is_bound_to

_FIRST = 3


def store(listener: socket.socket) -> None:
    """Hands a listening socket to systemd. Without systemd, does nothing."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifier:
            notifier.connect("\0" + address[1:] if address.startswith("@") else address)
            socket.send_fds(notifier, [b"FDSTORE=1"], [listener.fileno()])
    except OSError:
        pass  # the next start binds the address anew


def adopt(bind: Bind, environ: MutableMapping[str, str]) -> bool:
    """Takes a socket of this address back from systemd; False when there is none.

    Gunicorn uses it by what `environ` says. Sockets of other addresses (the setting has changed)
    are shut down and removed from `environ`; systemd drops a socket that is shut down.
    """
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return False
    count = int(environ.get("LISTEN_FDS", "0"))
    handed = [socket.socket(fileno=_FIRST + number) for number in range(count)]
    if len(handed) == 1 and is_bound_to(handed[0], bind):
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
