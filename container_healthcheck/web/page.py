"""The status page, for people: what the board says, the trouble first.

While nothing changes it is made anew every few seconds at most, however many look at it.
"""

from __future__ import annotations

import base64
import hashlib
import re
import socket
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import jinja2

from container_healthcheck import __version__
from container_healthcheck.board import Board
from container_healthcheck.model.counters import LastProbe
from container_healthcheck.model.drains import HOST, Mark
from container_healthcheck.model.history import History
from container_healthcheck.model.report import Report
from container_healthcheck.model.verdict import Code, Verdict
from container_healthcheck.settings import Settings
from container_healthcheck.web.words import Words

SHOWN_CHANGES = 30
# For how long a page that was made is shown again, in seconds.
KEPT = 5.0
_TEMPLATES = Path(__file__).parent / "templates"
_INLINE = re.compile(r"<(style|script)>(.*?)</\1>", re.DOTALL)


class Row(NamedTuple):
    """One app. `kind` is "bad", "drained" or "good"; `mark` is what drains it, if anything."""

    verdict: Verdict
    kind: str
    since: float | None
    probe: LastProbe | None
    mark: Mark | None


class _Made(NamedTuple):
    tag: str
    at: float
    html: bytes


class Page:
    """The page over a board; `clock` returns the time in seconds since the epoch."""

    def __init__(
        self, board: Board, settings: Settings, clock: Callable[[], float] = time.time
    ) -> None:
        self._board = board
        self._settings = settings
        self._clock = clock
        self._made: dict[str, _Made] = {}
        self._tag: tuple[Report | None, History | None, str] = (None, None, "")

    @cached_property
    def policy(self) -> str:
        """The Content-Security-Policy: nothing but the page's own style and script, by hash."""
        source = (_TEMPLATES / "status.html").read_text(encoding="utf-8")
        hashes = {kind: _hash(text) for kind, text in _INLINE.findall(source)}
        return (
            f"default-src 'none'; style-src {hashes['style']}; script-src {hashes['script']};"
            " connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none';"
            " frame-ancestors 'none'"
        )

    def tag(self, report: Report, words: Words) -> str:
        """A hash of what is news on the page: equal on every worker.

        Ages, probes that pass and Docker's words for how long a container is up are not in it.
        """
        history = self._board.state.history
        if self._tag[0] is not report or self._tag[1] is not history:
            self._tag = report, history, self._digest(report, history)
        return f"{self._tag[2]}-{words.tag}"

    def html(self, report: Report, words: Words) -> bytes:
        """The page."""
        tag, now = self.tag(report, words), self._clock()
        made = self._made.get(words.tag)
        if made is None or made.tag != tag or not 0 <= now - made.at < KEPT:
            made = _Made(tag, now, self._rendered(report, words, tag, now))
            self._made[words.tag] = made
        return made.html

    def _rendered(self, report: Report, words: Words, tag: str, now: float) -> bytes:
        rows = self._rows(report)
        kinds = [row.kind for row in rows]
        text = _TEMPLATE.render(
            words=words,
            tag=tag,
            rows=rows,
            bad=kinds.count("bad"),
            drained=kinds.count("drained"),
            good=kinds.count("good"),
            fault=report.fault,
            host_mark=report.drains.marks.get(HOST),
            changes=self._board.state.history.changes[:SHOWN_CHANGES],
            states={int(code): word for code, word in words.states.items()},
            kinds={int(code): _kind(code) for code in Code},
            host=socket.gethostname(),
            engine=self._settings.docker_host or "/var/run/docker.sock",
            version=__version__,
            prefix=self._settings.prefix,
            snapshot_age=self._board.age,
            now=now,
            age=lambda seconds: age(seconds, words),
        )
        # A lone surrogate, which Docker's JSON may carry, has no UTF-8.
        return text.encode("utf-8", "replace")

    def _rows(self, report: Report) -> list[Row]:
        history, probes = self._board.state.history, self._board.state.counters.probes
        rows = []
        for app_code, verdict in report.verdicts.items():
            since = history.since(app_code, verdict.code)
            mark = report.drains.marks.get(app_code)
            rows.append(Row(verdict, _kind(verdict.code), since, probes.get(app_code), mark))
        order = ("bad", "drained", "good")
        return sorted(rows, key=lambda row: (order.index(row.kind), row.verdict.app_code))

    def _digest(self, report: Report, history: History) -> str:
        parts: Iterable[object] = (
            __version__,
            report.etag,
            report.fault and report.fault.code,
            sorted(report.drains.marks.items()),
            sorted(report.failing.items()),
            [
                (app_code, history.since(app_code, verdict.code), _containers(verdict))
                for app_code, verdict in report.verdicts.items()
            ],
            [(each.at, each.app_code, each.new) for each in history.changes[:SHOWN_CHANGES]],
        )
        return hashlib.blake2b(repr(parts).encode(errors="replace"), digest_size=16).hexdigest()


def age(seconds: float, words: Words) -> str:
    """How long ago, in the largest unit that fits: the page's script says it in the same way."""
    left = max(seconds, 0.0)
    for size, unit in zip((60, 60, 24), words.units, strict=False):
        if left < size:
            return f"{int(left)} {unit}"
        left /= size
    return f"{int(left)} {words.units[-1]}"


def _kind(code: Code) -> str:
    return {Code.HEALTHY: "good", Code.DRAINED: "drained"}.get(code, "bad")


def _containers(verdict: Verdict) -> list[tuple[str, str, str]]:
    return [(each.id, each.state, each.health) for each in verdict.containers]


def _local(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _exact(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="seconds")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _compiled() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(local=_local, exact=_exact)
    return environment.get_template("status.html")


# Compiled when it is imported, before gunicorn makes workers: it takes longer than all else there.
_TEMPLATE = _compiled()
