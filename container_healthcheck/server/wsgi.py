"""The WSGI application of a gunicorn worker."""

from __future__ import annotations

from flask import Flask

from container_healthcheck.monitor import Monitor
from container_healthcheck.observer import Runtime
from container_healthcheck.relay.shared import SharedMemory
from container_healthcheck.server.greenlets import bounded, offload, spawn
from container_healthcheck.settings import from_process_environment
from container_healthcheck.web.app import create_app

MONITOR = "container_healthcheck"
"""The Monitor among the Flask extensions of the application."""

# What the workers of one master share: the WSGI server has no other way to hand it to them.
shared_memory = SharedMemory()


def create_worker_app() -> Flask:
    """The application, by the environment's settings, its monitor not started.

    Raises SettingsError.
    """
    settings = from_process_environment()
    runtime = Runtime(bounded=bounded, spawn=spawn, offload=offload)
    monitor = Monitor(settings, shared_memory, runtime)
    app = create_app(monitor.board, settings)
    app.extensions[MONITOR] = monitor
    return app
