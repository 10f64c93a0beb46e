"""Unix sockets with abstract names, between processes of one user.

An abstract name needs no folder and no room. One process at a time can listen on it, and it is free
again as soon as that process ends, however it ends.
"""

from __future__ import annotations

import os
import socket
import struct

_CREDENTIALS = struct.Struct("3i")


class StrangerError(ConnectionError):
    """The process at the other end belongs to another user."""


def listen(name: str) -> socket.socket:
    """Listens on a name. Raises OSError (EADDRINUSE) when another process does."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(f"\0{name}")
        listener.listen(128)
    except BaseException:
        listener.close()
        raise
    return listener


def connect(name: str, timeout: float) -> socket.socket:
    """Connects to the process of this user that listens on a name; `timeout` is in seconds.

    Raises ConnectionRefusedError when there is none, StrangerError, and OSError.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        connection.connect(f"\0{name}")
        verify(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def verify(connection: socket.socket) -> None:
    """Raises StrangerError unless a process of this user is at the other end."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    process, user, _ = _CREDENTIALS.unpack(found)
    if user != os.geteuid():
        raise StrangerError(f"process {process} of user {user} is at the other end")
