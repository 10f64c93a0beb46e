"""The WSGI application of a gunicorn worker."""

from __future__ import annotations

from flask import Flask

from container_healthcheck.monitor import Monitor, Shared
from container_healthcheck.server import shared
from container_healthcheck.server.greenlets import bounded, spawn
from container_healthcheck.server.lead import is_lead
from container_healthcheck.server.worker import MONITOR
from container_healthcheck.settings import from_process_environment
from container_healthcheck.web.app import create_app


def create_worker_app() -> Flask:
    """The application, by the environment's settings, its monitor not started.

    Raises SettingsError.
    """
    settings = from_process_environment()
    files = shared.files()
    monitor = Monitor(
        settings,
        Shared(files.ledger, files.sheet, is_lead),
        bounded=bounded,
        spawn=spawn,
    )
    app = create_app(monitor.board, settings)
    app.extensions[MONITOR] = monitor
    return app
