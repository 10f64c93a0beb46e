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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any, NoReturn

from container_healthcheck.cli.client import ServiceError, ask, service_url
from container_healthcheck.cli.exit_codes import FAILED, HEALTHY, NOT_HEALTHY, UNKNOWN, complain
from container_healthcheck.model import formatter
from container_healthcheck.model.drains import HOST
from container_healthcheck.model.names import NO_APP_CODE, is_app_code
from container_healthcheck.model.report import Report
from container_healthcheck.model.snapshot import Snapshot, snapshot_of
from container_healthcheck.model.verdict import Code
from container_healthcheck.observers.drain_folder import DrainFolder
from container_healthcheck.parsing import parse_service_url
from container_healthcheck.settings import Settings, SettingsError, environment_name, refusal

# The service reads the marks five times a second. How long `drain` waits until it has, and how long
# it pauses before it asks again, in seconds.
LONGEST_CONFIRMATION, CONFIRMATION_PAUSE = 3.0, 0.05

_REFUSALS = {Code.NO_CONTAINER, Code.NOT_HEALTHY, Code.NOT_SERVING, Code.DRAINED}


def check(parsed: argparse.Namespace, settings: Settings) -> int:
    """Says whether one app is healthy here."""
    app_code = parsed.app_code
    try:
        if not is_app_code(app_code):
            raise ServiceError(NO_APP_CODE)
        if parsed.direct:
            answer = _check_direct(settings, app_code, parsed.timeout)
        else:
            answer = ask(_url(parsed, settings), f"/apps/health/{app_code}", parsed.timeout)
    except (ServiceError, SettingsError) as error:
        answer = {"code": None, "status": "error", "message": str(error)}
    exit_code = _plugin_exit(answer["code"])
    if parsed.json:
        _print_json(answer)
    else:
        word = {HEALTHY: "OK", NOT_HEALTHY: "CRITICAL"}.get(exit_code, "UNKNOWN")
        print(f"{word}: {app_code}: {_one_line(answer)}")
    return exit_code


def _check_direct(settings: Settings, app_code: str, timeout: float) -> dict[str, Any]:
    """The verdict from Docker itself, with no service and no probe; the time-out in seconds."""
    # docker-py takes a tenth of a second to import, in which a restarting service would be away.
    from container_healthcheck.observers.engine import Engine, EngineError

    timeout = min(timeout, settings.docker_timeout)
    engine = Engine(settings, timeout=timeout, bounded=_bounded_by_alarm)
    now = time.monotonic()
    prefix = re.escape(settings.name_pattern.before + app_code)
    try:
        containers = engine.containers(name_prefix=prefix)
        snapshot = snapshot_of(containers, settings.name_pattern, confirmed_at=now)
    except EngineError as error:
        snapshot = Snapshot(fault=error.fault)
    finally:
        engine.close()
    folder = DrainFolder(settings.state_dir)
    drains = folder.current()
    if folder.problem:
        complain(folder.problem, UNKNOWN)
    report = Report(snapshot, drains=drains, now=now, stale_after=settings.stale_after)
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
        _print_json(answer)
    elif answer["code"] == Code.HEALTHY:
        _print_apps(answer["message"])
    else:
        return complain(str(answer["message"]), UNKNOWN)
    if answer["code"] != Code.HEALTHY:
        return UNKNOWN
    return HEALTHY if all(app["code"] == 0 for app in answer["message"]) else NOT_HEALTHY


def changes(parsed: argparse.Namespace, settings: Settings) -> int:
    """Shows the latest changes, of one app or of all. Raises SettingsError for no app code."""
    query = {} if parsed.app_code is None else {"app_code": _app_code(parsed.app_code)}
    try:
        answer = ask(_url(parsed, settings), "/changes", parsed.timeout, query)
    except ServiceError as error:
        return complain(str(error), FAILED)
    if parsed.json:
        _print_json(answer)
    elif answer["code"] == Code.HEALTHY:
        _print_changes(answer["message"])
    else:
        return complain(str(answer["message"]), FAILED)
    return 0 if answer["code"] == Code.HEALTHY else FAILED


def _print_apps(apps: Iterable[Mapping[str, Any]]) -> None:
    rows = (
        (
            app["app_code"],
            str(app["code"]),
            _local(app["since"]),
            str(len(app["containers"])),
            _one_line(app),
        )
        for app in apps
    )
    _print_table(("APP", "CODE", "SINCE", "CONTAINERS", "WHAT"), rows)


def _print_changes(changes: Iterable[Mapping[str, Any]]) -> None:
    rows = (
        (
            _local(each["at"]),
            each["app_code"],
            f"{'new' if each['old'] is None else each['old']} -> {each['new']}",
            " ".join(each["reason"].split()),
        )
        for each in changes
    )
    _print_table(("AT", "APP", "CODE", "WHY"), rows)


def _print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for *cells, last in table:
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=False))
        print("  ".join((*padded, last)))


def _local(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return datetime.fromtimestamp(seconds).isoformat(sep=" ", timespec="seconds")


def _print_json(answer: Mapping[str, Any]) -> None:
    print(json.dumps(answer, ensure_ascii=False, separators=(",", ":")))


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
    """Where to ask. Raises SettingsError."""
    if not parsed.url:
        return service_url(settings)
    try:
        return parse_service_url(parsed.url)
    except ValueError as error:
        raise refusal("--url", parsed.url, error) from error


def drain(parsed: argparse.Namespace, settings: Settings) -> int:
    """Takes an app, or the host, out on purpose. Raises SettingsError for what is no app code."""
    folder = DrainFolder(settings.state_dir)
    name, what = _drain_target(parsed)
    url = _url(parsed, settings)
    until = time.time() + parsed.duration.total_seconds() if parsed.duration else None
    try:
        mark = folder.add(name, parsed.reason, until)
        folder.remove_ended()
    except OSError as error:
        return complain(f"the mark cannot be written in {_refused(folder, error)}", FAILED)
    print(mark.sentence(what))
    # Any app code will do to see whether the host is drained.
    return _confirm(parsed, settings, url, "host" if name == HOST else name)


def _confirm(parsed: argparse.Namespace, settings: Settings, url: str, app_code: str) -> int:
    """Waits until the service obeys the mark: it may read another folder."""
    try:
        answer = _ask_until(url, app_code, parsed.timeout, lambda code: code == Code.DRAINED)
    except ServiceError as error:
        print(f"the mark waits for the service: {error}", file=sys.stderr)
        return 0
    if answer["code"] == Code.DRAINED:
        print(f"the service at {url} obeys it")
        if not (parsed.all or answer.get("containers")):
            print(f"no container of {app_code} is here now: is the name right?", file=sys.stderr)
        return 0
    if answer["code"] == Code.BAD_REQUEST:
        return complain(
            f"the mark stays, but whether {url} obeys it cannot be seen: {answer['message']}",
            FAILED,
        )
    return complain(
        f"the service at {url} does not see the mark in {settings.state_dir}: its STATE_DIR is"
        f" another (give this command its {environment_name('state_dir')}), or its user may not"
        " read it",
        FAILED,
    )


def _ask_until(
    url: str, app_code: str, timeout: float, is_obeyed: Callable[[int], bool]
) -> dict[str, Any]:
    """What the service says of an app once it obeys, or after a while. Raises ServiceError."""
    deadline = time.monotonic() + min(timeout, LONGEST_CONFIRMATION)
    while True:
        answer = ask(url, f"/apps/health/{app_code}", timeout, {"all": "true"})
        is_over = answer["code"] == Code.BAD_REQUEST or time.monotonic() >= deadline
        if is_over or is_obeyed(answer["code"]):
            return answer
        time.sleep(CONFIRMATION_PAUSE)


def undrain(parsed: argparse.Namespace, settings: Settings) -> int:
    """Ends a drain. Raises SettingsError for what is no app code."""
    folder = DrainFolder(settings.state_dir)
    name, what = _drain_target(parsed)
    url = _url(parsed, settings)
    try:
        was_drained = folder.remove(name)
        folder.remove_ended()
    except OSError as error:
        return complain(f"the mark cannot be removed from {_refused(folder, error)}", FAILED)
    print(f"{what} is drained no more" if was_drained else f"{what} was not drained")
    if name != HOST and (reason := folder.current().reason(name)):
        print(f"but {reason}")
    elif was_drained:
        with suppress(ServiceError):
            # Until it has read the folder again, a check would still say that the app is drained.
            app_code = "host" if name == HOST else name
            _ask_until(url, app_code, parsed.timeout, lambda code: code != Code.DRAINED)
    return 0


def _refused(folder: DrainFolder, error: OSError) -> str:
    return (
        f"{folder.path}: {error.strerror}: that folder must be writable for this user (try as"
        f" root), have room, and lie in the service's {environment_name('state_dir')}"
    )


def _drain_target(parsed: argparse.Namespace) -> tuple[str, str]:
    if parsed.all:
        return HOST, "this host"
    return _app_code(parsed.app_code), parsed.app_code


def _app_code(text: str) -> str:
    if not is_app_code(text):
        raise SettingsError(f"{text!r} is {NO_APP_CODE}")
    return text
