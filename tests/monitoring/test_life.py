"""A real Prometheus watches two real servers while an app dies and comes back, and more happens."""

from __future__ import annotations

import re

from sandbox.prometheus import RECIPES, RULES, named
from sandbox.waiting import wait_until
from tests.monitoring.life import APPS, DEAD, DRAINED, FIRST, FLAPPING, GATEWAY, SECOND, THIRD, Life

EXPECTED = {
    ("AppDown", FIRST, DEAD),
    ("AppServedNowhere", DEAD),
    ("AppFlaps", SECOND, FLAPPING),
    ("DockerNotAnswering", FIRST),
    ("NotScraped", SECOND),
    ("GatewayHearsNothing", GATEWAY, THIRD),
}


def test_what_had_to_fire_did_and_nothing_else_ever(life: Life) -> None:
    """Not for the drain, the redeployment or the killed worker, nor for each app without Docker."""
    fired = life.prometheus.query('max_over_time(ALERTS{alertstate="firing"}[1h])')

    assert {named(labels) for labels, _ in fired} == EXPECTED


def test_no_counter_went_back(life: Life) -> None:
    counters = '{__name__=~"container_healthcheck_.*_total"}'
    seen = life.prometheus.query(f"count({counters}) by (__name__)")

    names = {labels["__name__"] for labels, _ in seen}
    assert names >= {
        "container_healthcheck_app_changes_total",
        "container_healthcheck_docker_events_total",
        "container_healthcheck_probe_failures_total",
        "container_healthcheck_gateway_requests_total",
        "container_healthcheck_gateway_retries_total",
    }
    for name in names:
        assert life.prometheus.query(f"resets({name}[1h]) > 0") == []


def test_what_an_alert_says_is_filled_in(life: Life) -> None:
    assert {*life.annotations} >= EXPECTED
    for alert, texts in life.annotations.items():
        assert {*texts} == {"summary", "description", "summary_zh", "description_zh"}
        for text in texts.values():
            assert not re.search(r"\{\{|<no value>|<error|%!", text), text
        for language in ("summary", "summary_zh"):
            assert all(each in texts[language] for each in alert[1:]), texts


def test_gateway_and_servers_are_compared(life: Life) -> None:
    """By the same names: and they agree."""
    compared = (
        "count(container_healthcheck_gateway_app_up == on (server, app_code) group_left ()"
        " server_app_code:container_healthcheck_app_up:max)"
    )
    wait_until(
        lambda: [value for _, value in life.prometheus.query(compared)],
        [2.0 * len(APPS)].__eq__,
        "the gateway to agree with both servers about all apps",
    )


def test_every_recording_rule_records(life: Life) -> None:
    records = re.findall(r"record: (\S+)", (RECIPES / RULES[0]).read_text())

    assert len(records) >= 6
    for each in records:
        assert life.prometheus.query(f"max_over_time({each}[1h])"), each


def test_what_is_recorded_is_so(life: Life) -> None:
    recorded = life.prometheus.query("app_code:container_healthcheck_servers_up:sum")
    up = {labels["app_code"]: value for labels, value in recorded}

    assert up == {each: 1 if each == DRAINED else 2 for each in APPS}
