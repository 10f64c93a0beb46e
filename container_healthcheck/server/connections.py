"""Ending a connection that gunicorn has open, whatever greenlet waits for it."""

from __future__ import annotations

import _socket
import os
import socket


def end_of_requests(client: socket.socket) -> None:
    """Makes gunicorn see the end of a connection, as if its client had closed it."""
    try:
        # Not gevent's own shutdown, which is an error for whoever waits for the socket.
        raw = _socket.socket(fileno=os.dup(client.fileno()))
        try:
            raw.shutdown(socket.SHUT_RD)
        finally:
            raw.close()
    except OSError:
        pass
