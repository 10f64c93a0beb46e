"""The report: the verdicts on all apps at one moment.

A report does not change; what it computes on demand, it keeps. The next one is made from it, and
only the affected apps are evaluated again: a change costs the same with many apps.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from functools import cached_property
from types import MappingProxyType

from container_healthcheck.model import formatter
from container_healthcheck.model.drains import HOST, Drains
from container_healthcheck.model.snapshot import Snapshot
from container_healthcheck.model.verdict import Code, Fault, Verdict, evaluate

_NOTHING: Mapping[str, str] = MappingProxyType({})
_ETAG_BITS = 128


class Answer:
    """The answer to a check of one app; its body is made when it is first asked for."""

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict
        self.code: Code = verdict.code
        self.status = 200 if verdict.is_healthy else 503

    @cached_property
    def body(self) -> bytes:
        """The JSON."""
        return formatter.verdict_body(self.verdict)


class Report:
    """The verdicts that one snapshot, one set of probe failures and one set of drains make.

    `failing` holds what was seen of each app that must not be called healthy. `now` and
    `stale_after` are in seconds, `now` on the clock of the snapshot's `confirmed_at`. With the
    report `before` this one, only the `affected` apps, whose containers or probes have changed, and
    those whose drain has, are evaluated again; `evaluated` are the apps that were.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        failing: Mapping[str, str] = _NOTHING,
        drains: Drains | None = None,
        *,
        now: float,
        stale_after: float,
        before: Report | None = None,
        affected: Iterable[str] = (),
    ) -> None:
        self.snapshot = snapshot
        self.failing = failing
        self.drains = drains or Drains()
        self.fault: Fault | None = snapshot.fault_at(now, stale_after)
        fresh = snapshot.confirmed_at is not None and self.fault is None
        self.valid_until = (snapshot.confirmed_at or 0) + stale_after if fresh else float("inf")
        self._answers: dict[str, Answer] = {}
        self._sum = 0
        if before is not None:
            self._answers, self._sum = dict(before._answers), before._sum
        self.evaluated = self._to_evaluate(before, affected)
        self._evaluate(self.evaluated)

    def _to_evaluate(self, before: Report | None, affected: Iterable[str]) -> frozenset[str]:
        if before is not None and before.fault == self.fault:
            again = {*affected, *self.drains.changed_since(before.drains)}
            if HOST not in again:
                return frozenset(again)
        return self.snapshot.apps | self.drains.apps | self._answers.keys()

    def verdict(self, app_code: str) -> Verdict:
        """The verdict on one app."""
        return self.answer(app_code).verdict

    def answer(self, app_code: str) -> Answer:
        """The answer to a check of one app, which need not be an app that exists."""
        # Of others than the listed apps nothing is kept: what callers make up must not fill the
        # memory.
        return self._answers.get(app_code) or Answer(self._verdict(app_code))

    def is_listed(self, app_code: str) -> bool:
        """True for an app that has a container or a drain mark."""
        return app_code in self._answers

    @property
    def size(self) -> int:
        """How many apps are listed."""
        return len(self._answers)

    @cached_property
    def verdicts(self) -> Mapping[str, Verdict]:
        """The verdicts on all listed apps, in the order of their codes."""
        return {app_code: self._answers[app_code].verdict for app_code in sorted(self._answers)}

    @cached_property
    def codes_body(self) -> bytes:
        """The body of the answer with all codes."""
        return formatter.codes_body({each: int(self.verdicts[each].code) for each in self.verdicts})

    @property
    def etag(self) -> str:
        """A hash of all codes: equal on every worker.

        It is a sum, one term for each app, so that one app's change costs one term.
        """
        return f"{self._sum:0{_ETAG_BITS // 4}x}"

    def _evaluate(self, app_codes: Iterable[str]) -> None:
        for app_code in app_codes:
            old = self._answers.get(app_code)
            if old is not None:
                self._sum -= _term(app_code, old.code)
            if app_code in self.snapshot.apps or app_code in self.drains.marks:
                verdict = self._verdict(app_code)
                # An equal verdict keeps the body that was made for it.
                new = old if old is not None and old.verdict == verdict else Answer(verdict)
                self._answers[app_code] = new
                self._sum += _term(app_code, new.code)
            elif old is not None:
                del self._answers[app_code]
        self._sum %= 1 << _ETAG_BITS

    def _verdict(self, app_code: str) -> Verdict:
        return evaluate(
            app_code,
            drain=self.drains.reason(app_code),
            fault=self.fault,
            candidates=self.snapshot.by_app.get(app_code, ()),
            probe_failure=self.failing.get(app_code),
        )


def _term(app_code: str, code: Code) -> int:
    text = f"{app_code} {int(code)}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=_ETAG_BITS // 8).digest(), "big")
