"""The HTTP answers, from a real engine through a real gunicorn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sandbox.service import RunningService
from sandbox.waiting import wait_until


def test_a_running_container_is_healthy(
    service: RunningService, run: Callable[..., Any], app_code: str
) -> None:
    container = run(f"{app_code}-1709878117")

    answer = wait_until(lambda: service.check(app_code), lambda a: a.status == 200, "health")

    assert answer.body.startswith(
        b'{"code":0,"status":"ok","message":{"command":"sh /build/builder","container_id":"'
        + container.id[:10].encode()
    )
