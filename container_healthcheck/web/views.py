"""The HTTP answers: a blueprint over the board. No check touches Docker or an app."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable

from flask import Blueprint, Response, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from container_healthcheck.board import Board
from container_healthcheck.model import formatter
from container_healthcheck.model.history import Change
from container_healthcheck.model.names import NO_APP_CODE, is_app_code
from container_healthcheck.model.report import Report
from container_healthcheck.model.verdict import Code, Fault
from container_healthcheck.settings import Settings
from container_healthcheck.web.metrics import CONTENT_TYPE, Metrics
from container_healthcheck.web.page import Page
from container_healthcheck.web.words import ENGLISH, LANGUAGES, Words

log = logging.getLogger(__name__)

LONGEST_WAIT = 30
"""The longest time an answer is held back for `Prefer: wait`, in seconds (RFC 7240)."""

_REFUSED = 503

_HEALTH_BODY = formatter.text_body(Code.HEALTHY, "i'm healthy")
_READY_BODY = formatter.text_body(Code.HEALTHY, "ready")
_WAIT = re.compile(r"""\s*wait\s*=\s*"?([0-9]{1,9})"?\s*(?:;.*)?""", re.IGNORECASE)


def create_blueprint(board: Board, settings: Settings) -> Blueprint:
    """The blueprint that answers from `board`."""
    views = _Views(board, settings)
    blueprint = Blueprint("container-healthcheck", __name__)
    for rule, view in (
        ("/health", views.health),
        ("/ready", views.ready),
        ("/apps", views.apps),
        ("/apps/health", views.codes),
        ("/changes", views.changes),
        ("/metrics", views.metrics),
        ("/", views.page),
        ("/apps/health/<app_code>", views.check),
    ):
        blueprint.add_url_rule(
            rule, view.__name__, view, methods=["GET"], provide_automatic_options=False
        )
    blueprint.app_errorhandler(HTTPException)(views.http_error)
    blueprint.app_errorhandler(Exception)(_internal_error)
    return blueprint


class _Views:
    """One method a path."""

    def __init__(self, board: Board, settings: Settings) -> None:
        self._board = board
        self._prefix = settings.prefix
        self._metrics = Metrics(board)
        self._page = Page(board, settings)

    def health(self) -> Response:
        return _answer(_HEALTH_BODY, 200)

    def ready(self) -> Response:
        fault = self._board.report().fault
        return _answer(_READY_BODY, 200) if fault is None else _fault_answer(fault)

    def check(self, app_code: str) -> Response:
        if not is_app_code(app_code):
            return _answer(_bad_app_code(app_code), 400)
        report = self._board.report()
        answer = report.answer(app_code)
        body = answer.body
        if request.query_string and request.args.get("all", "").lower() in ("true", "1"):
            body = formatter.verdict_body(answer.verdict, containers=True)
        return _answer(body, answer.status)

    def codes(self) -> Response:
        wait = _preferred_wait()
        known = request.if_none_match

        def is_known(report: Report) -> bool:
            return report.fault is None and known.contains_weak(report.etag)

        report = self._board.wait(is_known, wait or 0)
        if report.fault is not None:
            response = _fault_answer(report.fault)
        else:
            response = _answer(b"", 304) if is_known(report) else _answer(report.codes_body, 200)
            response.set_etag(report.etag)
        if wait is not None:
            response.headers["Preference-Applied"] = f"wait={wait}"
        return response

    def apps(self) -> Response:
        board = self._board
        report = board.report()
        if report.fault is not None:
            return _fault_answer(report.fault)
        history, probes = board.state.history, board.state.counters.probes
        return _answer(formatter.overview(report.verdicts.values(), history, probes), 200)

    def changes(self) -> Response:
        self._board.report()
        changes: Iterable[Change] = self._board.state.history.changes
        if (app_code := request.args.get("app_code")) is not None:
            if not is_app_code(app_code):
                return _answer(_bad_app_code(app_code), 400)
            changes = (change for change in changes if change.app_code == app_code)
        return _answer(formatter.changes_body(changes), 200)

    def metrics(self) -> Response:
        return _answer(self._metrics.text(), 200, CONTENT_TYPE)

    def page(self) -> Response:
        """Waits on itself, by its own ETag: what is news on it is more than a code."""
        words = _wanted_words()
        wait = _preferred_wait()
        known = request.if_none_match

        def is_known(report: Report) -> bool:
            return known.contains_weak(self._page.tag(report, words))

        report = self._board.wait(is_known, wait or 0)
        body, status = (b"", 304) if is_known(report) else (self._page.html(report, words), 200)
        response = _answer(body, status, "text/html; charset=utf-8")
        response.set_etag(self._page.tag(report, words))
        response.headers["Vary"] = "Accept-Language"
        response.headers["Content-Security-Policy"] = self._page.policy
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        if wait is not None:
            response.headers["Preference-Applied"] = f"wait={wait}"
        return response

    def http_error(self, error: HTTPException) -> Response:
        """What Flask and werkzeug refuse."""
        status = error.code or 500
        if status == 404:
            text = f"no such path: {request.path[:200]!r}"
            if not request.path.startswith(f"{self._prefix}/"):
                text += f": the paths here begin with {self._prefix}/"
        elif status == 405:
            text = f"method {request.method[:20]} is not allowed: use GET or HEAD"
        else:
            text = error.name
        response = _answer(formatter.text_body(Code.BAD_REQUEST, text), status)
        if isinstance(error, MethodNotAllowed) and error.valid_methods:
            response.headers["Allow"] = ", ".join(sorted(error.valid_methods))
        return response


def _answer(body: bytes, status: int, content_type: str = "application/json") -> Response:
    response = Response(body, status, content_type=content_type)
    response.headers["Cache-Control"] = "no-store"
    return response


def _fault_answer(fault: Fault) -> Response:
    return _answer(formatter.text_body(fault.code, fault.text), _REFUSED)


def _bad_app_code(app_code: str) -> bytes:
    shown = app_code if len(app_code) <= 40 else app_code[:40] + "…"
    return formatter.text_body(Code.BAD_APP_CODE, f"{shown!r} is {NO_APP_CODE}")


def _preferred_wait() -> int | None:
    """The seconds of `Prefer: wait=…`, cut to the longest allowed, or None.

    Of several the first one counts (RFC 7240, section 2).
    """
    for preference in request.headers.get("Prefer", "").split(","):
        found = _WAIT.fullmatch(preference)
        if found:
            return min(int(found.group(1)), LONGEST_WAIT)
    return None


def _wanted_words() -> Words:
    """The page's language: the one that is asked for, or the one that the browser likes best."""
    # The best liked one first.
    liked = (tag.partition("-")[0].lower() for tag, quality in request.accept_languages if quality)
    tags = (request.args.get("lang", ""), *liked)
    return next((LANGUAGES[tag] for tag in tags if tag in LANGUAGES), ENGLISH)


def _internal_error(error: Exception) -> Response:
    log.error("internal error at %r", request.path[:200], exc_info=error)
    return _answer(
        formatter.text_body(Code.BAD_REQUEST, "internal error: see the service's log"), 500
    )
