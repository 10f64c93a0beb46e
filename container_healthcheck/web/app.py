"""The application factory."""

from __future__ import annotations

from flask import Flask

from container_healthcheck.board import Board
from container_healthcheck.settings import Settings
from container_healthcheck.web.views import create_blueprint


def create_app(board: Board, settings: Settings) -> Flask:
    """The WSGI application that answers from `board`."""
    app = Flask(__name__, static_folder=None)
    app.url_map.strict_slashes = False
    # Two slashes are another path, not one that redirects.
    app.url_map.merge_slashes = False
    app.register_blueprint(create_blueprint(board, settings), url_prefix=settings.prefix or None)
    return app
