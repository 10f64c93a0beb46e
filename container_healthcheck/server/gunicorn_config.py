"""Gunicorn's configuration, from the settings. Gunicorn reads the names of this module.

The master imports the whole application before it forks, so that workers start fast and share its
memory. It makes no threads, sockets or clients: those do not survive a fork, and each worker starts
its own.
"""

from __future__ import annotations

import gc
import logging
import resource
import sys
from typing import Any

from container_healthcheck.server.patching import patch_master
from container_healthcheck.settings import (
    ACCESS_LOG_FILE,
    LOG_FILE,
    Settings,
    SettingsError,
    from_process_environment,
)


def _settings() -> Settings:
    try:
        return from_process_environment()
    except SettingsError as error:
        sys.exit(f"container-healthcheck: {error}")


_current = _settings()
# Not before a wrong setting has ended the process: an old gevent would complain at that end.
patch_master()

from container_healthcheck.server import handover, wsgi  # noqa: E402

# What gunicorn keeps beyond nginx's own 60 s, so that it is never the one to close first.
_KEEPALIVE = 75
_OPEN_FILES = 65_536


def _log_file(settings: Settings, name: str) -> str:
    return str(settings.log_dir / name) if settings.log_dir else "-"


wsgi_app = "container_healthcheck.server.wsgi:create_worker_app()"
bind = str(_current.bind)
workers = _current.workers
worker_class = "container_healthcheck.server.worker.Worker"
worker_connections = 10_000
keepalive = _KEEPALIVE
timeout = 10
graceful_timeout = 2
preload_app = False
control_socket_disable = True
limit_request_line = 8190
proc_name = "container-healthcheck"
loglevel = _current.log_level
errorlog = _log_file(_current, LOG_FILE)
accesslog = _log_file(_current, ACCESS_LOG_FILE) if _current.log_level == "debug" else None


def _journal_handlers() -> list[logging.Handler]:
    """With a log folder, warnings go to stderr (systemd's journal) as well: people look there."""
    if _current.log_dir is None:
        return []
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter("%(message)s"))
    return [handler]


def on_starting(_: Any) -> None:
    """Keeps the garbage collector from writing into the memory that workers will share."""
    gc.freeze()


def on_reload(_: Any) -> None:
    """Lets the old workers know that new ones will replace them."""
    wsgi.shared_memory.count_reload()


def when_ready(arbiter: Any) -> None:
    """Lets workers hold a thousand waiting clients and as many probes; hands over the socket."""
    # `systemd`: it came from there.
    if not arbiter.systemd:
        for listener in arbiter.LISTENERS:
            handover.store(listener.sock)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def post_worker_init(worker: Any) -> None:
    """Starts the monitor; it logs where gunicorn does, into files that USR1 reopens."""
    own = logging.getLogger("container_healthcheck")
    own.handlers = [*worker.log.error_log.handlers, *_journal_handlers()]
    own.setLevel(worker.log.error_log.level)
    own.propagate = False
    worker.start_monitor()


def worker_exit(_: Any, worker: Any) -> None:
    """Ends the worker's monitor."""
    worker.end_monitor()
