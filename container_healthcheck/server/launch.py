"""From an environment to a running gunicorn.

The settings are read here, so that a wrong one stops the start with one line; again by gunicorn's
configuration, which is a process image later; and by each worker, since a reload makes new ones.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import NoReturn

from container_healthcheck.server import handover
from container_healthcheck.server.listening import port_problem
from container_healthcheck.settings import Settings, log_files

_GUNICORN = ("-m", "gunicorn", "-c", "python:container_healthcheck.server.gunicorn_config")


class LaunchError(Exception):
    """The service cannot start. The text is one line: what is wrong, and what to do."""


def serve(environ: Mapping[str, str]) -> NoReturn:
    """Becomes gunicorn. Raises SettingsError and LaunchError."""
    environ = dict(environ)
    settings = Settings.from_environment(environ)
    problem = _log_dir_problem(settings)
    if problem is None and not handover.adopt(settings.bind, environ):
        problem = port_problem(settings.bind)
    if problem is not None:
        raise LaunchError(problem)
    os.execve(sys.executable, [sys.executable, *_GUNICORN], environ)  # noqa: S606


def _log_dir_problem(settings: Settings) -> str | None:
    folder = settings.log_dir
    if folder is None:
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return f"LOG_DIR: {folder} cannot be made: {error.strerror}"
    for log in (folder / name for name in log_files(settings.log_level)):
        try:
            log.open("ab").close()
        except OSError as error:
            return (
                f"LOG_DIR: {log} cannot be written: {error.strerror}: let this user write there,"
                " or change the setting"
            )
    return None
