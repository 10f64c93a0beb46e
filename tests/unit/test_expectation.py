"""What events let expect while the engine's list is behind."""

from __future__ import annotations

import pytest

from container_healthcheck.model.container import Container
from container_healthcheck.model.expectation import Expectation
from tests.unit.containers import container

RUNNING = container("a-1")
EXITED = container("a-1", state="exited", status="Exited (137) 1 second ago")
PAUSED = container("a-1", state="paused", status="Up 5 days (Paused)")
CREATED = container("a-1", state="created", status="Created")
RESTARTING = container("a-1", state="restarting", status="Restarting (1) 1 second ago")
HEALTHY = container("a-1", health="healthy")
UNHEALTHY = container("a-1", health="unhealthy")
STARTING = container("a-1", health="starting")


def expect(*actions: str, **attributes: str) -> Expectation:
    expectation = Expectation()
    for action in actions:
        expectation = expectation.after(action, attributes)
    return expectation


@pytest.mark.parametrize(
    ("actions", "listed", "is_met", "is_live"),
    [
        (["die"], RUNNING, False, False),
        (["die"], PAUSED, False, False),
        (["die"], EXITED, True, False),
        (["die"], RESTARTING, True, False),
        (["die"], None, False, None),
        (["die", "stop"], RUNNING, False, False),
        (["pause"], RUNNING, False, False),
        (["pause"], PAUSED, True, False),
        (["destroy"], RUNNING, False, None),
        (["destroy"], EXITED, False, None),
        (["destroy"], None, True, None),
        (["die", "destroy"], EXITED, False, None),
        # Good news is left to the list.
        (["start"], EXITED, False, False),
        (["start"], CREATED, False, False),
        (["start"], None, False, None),
        (["start"], RUNNING, True, True),
        (["start"], STARTING, True, False),
        (["die", "start"], RUNNING, True, True),
        (["die", "start", "restart"], EXITED, False, False),
        (["unpause"], PAUSED, False, False),
        (["pause", "unpause"], RUNNING, True, True),
        (["create"], None, False, None),
        (["create"], CREATED, True, False),
        (["health_status: unhealthy"], HEALTHY, False, False),
        (["health_status: unhealthy"], UNHEALTHY, True, False),
        (["health_status: healthy"], STARTING, False, False),
        (["health_status: healthy"], HEALTHY, True, True),
        (["health_status: unhealthy", "die", "start"], STARTING, True, False),
        (["update"], RUNNING, True, True),
        (["health_status"], RUNNING, True, True),
    ],
)
def test_bad_news_counts_until_the_list_agrees(
    actions: list[str], listed: Container | None, is_met: bool, is_live: bool | None
) -> None:
    expectation = expect(*actions)

    assert expectation.is_met(listed) is is_met
    thought = expectation.applied_to(listed)
    assert (thought and thought.is_live) is is_live


def test_a_renamed_container_is_looked_at_until_it_has_its_name() -> None:
    expectation = expect("rename", name="b-1", oldName="/a-1")

    assert not expectation.is_met(RUNNING)
    assert expectation.is_met(container("b-1"))
    assert expectation.applied_to(RUNNING) is RUNNING


def test_a_dead_container_shows_its_exit_code() -> None:
    thought = expect("die", exitCode="137").applied_to(RUNNING)

    assert thought is not None
    assert (thought.state, thought.status) == ("exited", "Exited (137)")
