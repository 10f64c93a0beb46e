"""Gunicorn's configuration for a checkout: all of it is in container_healthcheck/server.py."""

from container_healthcheck.server import *  # noqa: F403
