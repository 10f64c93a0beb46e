"""What the command line asks of a running service, or of Docker itself, and the drains.

Exit codes of `check` and `list` are those of monitoring plugins: 0 healthy, 2 not, 3 unknown. Those
of the others: 0 done, 1 failed.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from container_healthcheck.board import Report
from container_healthcheck.cli.client import ServiceError, ask, service_url
from container_healthcheck.model import formatter
from container_healthcheck.model.names import is_app_code
from container_healthcheck.model.snapshot import Picture, draw
from container_healthcheck.model.verdict import Code
from container_healthcheck.observers.drain_folder import HOST, DrainFolder
from container_healthcheck.settings import Settings, SettingsError, environment_name

HEALTHY, FAILED = 0, 1
NOT_HEALTHY, UNKNOWN = 2, 3
_REFUSALS = {Code.NO_CONTAINER, Code.NOT_HEALTHY, Code.NOT_SERVING, Code.DRAINED}


def complain(text: str, code: int) -> int:
    """Says on stderr, in one line, what is wrong; returns the exit code."""
    print(f"container-healthcheck: {text}", file=sys.stderr)
    return code


def check(parsed: argparse.Namespace, settings: Settings) -> int:
    """Says whether one app is healthy here."""
    app_code = parsed.app_code
    try:
        if not is_app_code(app_code):
            raise ServiceError(
                "not an app code: letters, digits and _ . - are allowed, the first one a letter or"
                " digit, 128 at most"
            )
        if parsed.direct:
            answer = _check_direct(settings, app_code)
        else:
            answer = ask(_url(parsed, settings), f"/apps/health/{app_code}", parsed.timeout)
    except ServiceError as error:
        answer = {"code": None, "status": "error", "message": str(error)}
    exit_code = _plugin_exit(answer["code"])
    if parsed.json:
        print(json.dumps(answer, ensure_ascii=False, separators=(",", ":")))
    else:
        word = {HEALTHY: "OK", NOT_HEALTHY: "CRITICAL"}.get(exit_code, "UNKNOWN")
        print(f"{word}: {app_code}: {_one_line(answer)}")
    return exit_code


def _check_direct(settings: Settings, app_code: str) -> dict[str, Any]:
    """The verdict from Docker itself, with no service and no probe."""
    # docker-py takes a tenth of a second to import, in which a restarting service would be away.
    from container_healthcheck.observers.engine import Engine, EngineError

    engine = Engine(settings, bounded=_bounded_by_alarm)
    now = time.monotonic()
    prefix = re.escape(settings.name_pattern.before + app_code)
    try:
        containers = engine.containers(name_prefix=prefix)
        picture = draw(containers, settings.name_pattern, confirmed_at=now)
    except EngineError as error:
        picture = Picture(fault=error.fault)
    finally:
        engine.close()
    drains = DrainFolder(settings.state_dir).current()
    report = Report(picture, {}, drains, now=now, stale_after=settings.stale_after)
    return formatter.verdict_fields(report.verdict(app_code))


@contextmanager
def _bounded_by_alarm(seconds: float) -> Iterator[None]:
    def give_up(*_: object) -> NoReturn:
        raise TimeoutError(f"not done within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def list_apps(parsed: argparse.Namespace, settings: Settings) -> int:
    """Shows all apps."""
    try:
        answer = ask(_url(parsed, settings), "/apps", parsed.timeout)
    except ServiceError as error:
        return complain(str(error), UNKNOWN)
    if parsed.json:
        print(json.dumps(answer, ensure_ascii=False, separators=(",", ":")))
    elif answer["code"] == Code.HEALTHY:
        _print_table(answer["message"])
    else:
        return complain(str(answer["message"]), UNKNOWN)
    if answer["code"] != Code.HEALTHY:
        return UNKNOWN
    return HEALTHY if all(app["code"] == 0 for app in answer["message"]) else NOT_HEALTHY


def _print_table(apps: Sequence[Mapping[str, Any]]) -> None:
    rows = [("APP", "CODE", "CONTAINERS", "WHAT")]
    for app in apps:
        rows.append(
            (app["app_code"], str(app["code"]), str(len(app["containers"])), _one_line(app))
        )
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=False))
        print("  ".join((*cells, row[3])))


def _one_line(answer: Mapping[str, Any]) -> str:
    message = answer["message"]
    if isinstance(message, Mapping):
        message = f"{message['names']} {message['status']}"
    return " ".join(str(message).split())


def _plugin_exit(code: int | None) -> int:
    if code == Code.HEALTHY:
        return HEALTHY
    return NOT_HEALTHY if code in _REFUSALS else UNKNOWN


def _url(parsed: argparse.Namespace, settings: Settings) -> str:
    return parsed.url or service_url(settings)


def drain(parsed: argparse.Namespace, settings: Settings) -> int:
    """Takes an app, or the host, out on purpose. Raises SettingsError for what is no app code."""
    folder = DrainFolder(settings.state_dir)
    name, what = _drain_target(parsed)
    until = time.time() + parsed.duration.total_seconds() if parsed.duration else None
    try:
        mark = folder.add(name, parsed.reason, until)
        folder.remove_ended()
    except OSError as error:
        return complain(f"the mark cannot be written in {folder.path}: {error.strerror}", FAILED)
    print(mark.sentence(what))
    # Any app code will do to see whether the host is drained.
    return _confirm(parsed, settings, "host" if name == HOST else name)


def _confirm(parsed: argparse.Namespace, settings: Settings, app_code: str) -> int:
    """Sees that the service obeys the mark: it may look in another folder."""
    url = _url(parsed, settings)
    try:
        code = ask(url, f"/apps/health/{app_code}", parsed.timeout)["code"]
    except ServiceError as error:
        print(f"the mark waits for the service: {error}", file=sys.stderr)
        return 0
    if code == Code.DRAINED:
        print(f"the service at {url} obeys it")
        return 0
    return complain(
        f"the service at {url} does not see the mark in {settings.state_dir}: its STATE_DIR is"
        f" another (give this command its {environment_name('state_dir')}), or its user may not"
        " read it",
        FAILED,
    )


def undrain(parsed: argparse.Namespace, settings: Settings) -> int:
    """Ends a drain. Raises SettingsError for what is no app code."""
    folder = DrainFolder(settings.state_dir)
    name, what = _drain_target(parsed)
    try:
        was_drained = folder.remove(name)
        folder.remove_ended()
    except OSError as error:
        return complain(f"the mark cannot be removed from {folder.path}: {error.strerror}", FAILED)
    print(f"{what} is drained no more" if was_drained else f"{what} was not drained")
    if name != HOST and (reason := folder.current().reason(name)):
        print(f"but {reason}")
    return 0


def _drain_target(parsed: argparse.Namespace) -> tuple[str, str]:
    if parsed.all:
        return HOST, "this host"
    if not is_app_code(parsed.app_code):
        raise SettingsError(f"{parsed.app_code!r} is not an app code")
    return parsed.app_code, parsed.app_code
