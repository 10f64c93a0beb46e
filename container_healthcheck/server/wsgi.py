"""The WSGI application of a gunicorn worker."""

from __future__ import annotations

from flask import Flask

from container_healthcheck import settings as config
from container_healthcheck.monitor import Service
from container_healthcheck.server.worker import EXTENSION, bounded, is_lead
from container_healthcheck.web.app import create_app


def create_worker_app() -> Flask:
    """The application, by the environment's settings, its service not started.

    Raises SettingsError.
    """
    settings = config.from_process_environment()
    service = Service(settings, is_lead=is_lead, bounded=bounded)
    app = create_app(service.board, settings)
    app.extensions[EXTENSION] = service
    return app
