"""Turns verdicts and containers into the JSON that gateways and checks read.

The envelope is `{"code", "status", "message"}`, the container's keys are those of the Go tool
1.0.x, and the order of all keys is part of the contract.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from container_healthcheck.model.container import Container
from container_healthcheck.model.counters import LastProbe
from container_healthcheck.model.history import Change, History
from container_healthcheck.model.verdict import Code, Verdict

SHORT_ID = 10


def container_fields(container: Container) -> dict[str, Any]:
    """The JSON object of one container. `created` is in seconds since the epoch."""
    return {
        "command": container.command,
        "container_id": container.id[:SHORT_ID],
        "created": container.created,
        "image": container.image,
        "names": container.name,
        "port": container.ports,
        "state": container.state,
        "status": container.status,
    }


def verdict_fields(verdict: Verdict, *, containers: bool = False) -> dict[str, Any]:
    """The envelope of one verdict, with every container of the app beside it when asked."""
    fields = _envelope(verdict.code, _message(verdict))
    if containers:
        fields["containers"] = [container_fields(each) for each in verdict.containers]
    return fields


def overview(
    verdicts: Iterable[Verdict], history: History, last_probes: Mapping[str, LastProbe]
) -> bytes:
    """The body of the list of all apps."""
    return _encode(
        _envelope(
            Code.HEALTHY,
            [
                {
                    "app_code": verdict.app_code,
                    **verdict_fields(verdict, containers=True),
                    "since": history.since(verdict.app_code, verdict.code),
                    "probe": _probe_fields(last_probes.get(verdict.app_code)),
                }
                for verdict in verdicts
            ],
        )
    )


def changes_body(changes: Iterable[Change]) -> bytes:
    """The body of the list of changes."""
    return _encode(_envelope(Code.HEALTHY, [asdict(change) for change in changes]))


def verdict_body(verdict: Verdict, *, containers: bool = False) -> bytes:
    """The body of one check."""
    return _encode(verdict_fields(verdict, containers=containers))


def codes_body(codes: Mapping[str, int]) -> bytes:
    """The body of all verdicts at once."""
    return _encode(_envelope(Code.HEALTHY, codes))


def text_body(code: Code, text: str) -> bytes:
    """The body of an answer whose message is one sentence."""
    return _encode(_envelope(code, text))


def _probe_fields(probe: LastProbe | None) -> dict[str, Any] | None:
    if probe is None:
        return None
    return {
        "passed": probe.seen is None,
        "seen": probe.seen,
        "asked_at": probe.asked_at,
        "seconds": probe.seconds,
    }


def _message(verdict: Verdict) -> object:
    return verdict.reason if verdict.container is None else container_fields(verdict.container)


def _envelope(code: Code, message: object) -> dict[str, Any]:
    return {
        "code": int(code),
        "status": "ok" if code is Code.HEALTHY else "error",
        "message": message,
    }


def _encode(value: object) -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    # A lone surrogate, which JSON from elsewhere may carry, has no UTF-8.
    return text.encode("utf-8", "replace")
