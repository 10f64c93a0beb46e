"""Replaces what blocks a thread in the standard library with gevent's, before anything uses it.

Gunicorn's master, which imports the application for all workers, gets only what other modules take
out of the standard library when they are imported; the master itself keeps clocks, queues and
signals that work without gevent. Each worker replaces the rest after the fork.
"""

from gevent import monkey


def patch_master() -> None:
    """Replaces what the application takes out of the standard library when it is imported."""
    monkey.patch_thread()
    monkey.patch_socket()
    monkey.patch_ssl()


def patch_worker() -> None:
    """Replaces the rest, in a worker; it makes no processes."""
    monkey.patch_time()
    monkey.patch_select()
    monkey.patch_queue()
