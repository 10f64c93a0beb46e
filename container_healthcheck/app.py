"""The application factory."""

from __future__ import annotations

from flask import Flask

from container_healthcheck import config
from container_healthcheck.api import create_blueprint
from container_healthcheck.config import Settings
from container_healthcheck.service import Service
from container_healthcheck.worker import EXTENSION, bounded, is_lead


def create_app(settings: Settings, service: Service) -> Flask:
    """The WSGI application that answers from `service`, which the caller starts and stops."""
    app = Flask(__name__, static_folder=None)
    app.url_map.strict_slashes = False
    # Two slashes are another path, not one that redirects.
    app.url_map.merge_slashes = False
    app.register_blueprint(create_blueprint(service.board), url_prefix=settings.prefix or None)
    app.extensions[EXTENSION] = service
    return app


def create_worker_app() -> Flask:
    """The application of a gunicorn worker, by the environment's settings, its service not started.

    Raises SettingsError.
    """
    settings = config.from_process_environment()
    return create_app(settings, Service(settings, is_lead=is_lead, bounded=bounded))
