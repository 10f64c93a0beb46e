"""Gunicorn's configuration for a checkout: container_healthcheck/server/gunicorn_config.py."""

from container_healthcheck.server.gunicorn_config import *  # noqa: F403
