"""The verdict's rules, in their order."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from container_healthcheck.model.container import Container
from container_healthcheck.model.verdict import Code, Fault, Verdict, evaluate
from tests.unit.containers import container

RUNNING = container("a-2", created=2)
OLD_RUNNING = container("a-1", created=1)
NEW_DEAD = container("a-3", created=3, state="exited", status="Exited (1) 2 minutes ago")
FAULT = Fault(Code.ENGINE_FAULTY, "Docker does not answer")


def verdict_on(
    candidates: Sequence[Container] = (RUNNING,),
    *,
    drain: str | None = None,
    fault: Fault | None = None,
    probe_failure: str | None = None,
) -> Verdict:
    return evaluate(
        "a", drain=drain, fault=fault, candidates=candidates, probe_failure=probe_failure
    )


def test_a_running_container_is_healthy() -> None:
    verdict = verdict_on()

    assert verdict.is_healthy
    assert verdict.container is RUNNING


def test_a_redeploy_is_no_error_and_the_newest_is_named() -> None:
    assert verdict_on([RUNNING, OLD_RUNNING]).container is RUNNING


def test_a_failed_redeploy_leaves_the_old_one_healthy() -> None:
    verdict = verdict_on([NEW_DEAD, OLD_RUNNING])

    assert verdict.is_healthy
    assert verdict.container is OLD_RUNNING
    assert verdict.containers == [NEW_DEAD, OLD_RUNNING]


def test_no_container() -> None:
    verdict = verdict_on([])

    assert (verdict.code, verdict.reason) == (Code.NO_CONTAINER, "no container of a on this host")


@pytest.mark.parametrize(
    ("state", "health", "status", "said"),
    [
        ("exited", "", "Exited (137) 1 hour ago", "a-9 is exited: Exited (137) 1 hour ago"),
        ("paused", "", "Up 1 hour (Paused)", "a-9 is paused: Up 1 hour (Paused)"),
        ("restarting", "", "Restarting (1) 1 second ago", "a-9 is restarting: Restarting (1)"),
        ("created", "", "Created", "a-9 is created: Created"),
        ("dead", "", "Dead", "a-9 is dead: Dead"),
        ("removing", "", "Removal In Progress", "a-9 is removing: Removal In Progress"),
        ("running", "unhealthy", "Up 1 hour (unhealthy)", "a-9 is unhealthy: Up 1 hour"),
        ("running", "starting", "Up 1 second (health: starting)", "a-9 is starting: Up 1 second"),
        ("", "", "", "a-9 is in no known state: no status"),
    ],
)
def test_none_healthy_names_the_newest(state: str, health: str, status: str, said: str) -> None:
    newest = container("a-9", created=9, state=state, health=health, status=status)
    older = container("a-1", created=1, state="exited", status="Exited (0) 5 days ago")

    verdict = verdict_on([newest, older])

    assert verdict.code is Code.NOT_HEALTHY
    assert verdict.reason.startswith(said)
    assert verdict.container is None


def test_a_failing_probe_says_what_it_saw() -> None:
    verdict = verdict_on(probe_failure="502 Bad Gateway from http://127.0.0.1:8010/o/a/")

    assert verdict.code is Code.NOT_SERVING
    assert "a-2 is running" in verdict.reason
    assert "502 Bad Gateway" in verdict.reason


@pytest.mark.parametrize(
    ("drain", "fault", "candidates", "probe_failure", "code"),
    [
        ("on purpose", FAULT, [], "502", Code.DRAINED),
        (None, FAULT, [], "502", Code.ENGINE_FAULTY),
        (None, Fault(Code.ENGINE_UNREACHABLE, "no socket"), [RUNNING], None, 10),
        (None, None, [], "502", Code.NO_CONTAINER),
        (None, None, [NEW_DEAD], "502", Code.NOT_HEALTHY),
        (None, None, [RUNNING], "502", Code.NOT_SERVING),
    ],
)
def test_the_first_rule_that_applies_decides(
    drain: str | None,
    fault: Fault | None,
    candidates: list[Container],
    probe_failure: str | None,
    code: int,
) -> None:
    verdict = verdict_on(candidates, drain=drain, fault=fault, probe_failure=probe_failure)

    assert verdict.code == code
    assert verdict.reason
