"""The metrics: names, labels and values, always as text 0.0.4, and always 200."""

from __future__ import annotations

import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from container_healthcheck import __version__
from container_healthcheck.model.counters import LastProbe
from container_healthcheck.model.drains import HOST, Mark
from container_healthcheck.model.history import Change
from container_healthcheck.model.message import Message
from container_healthcheck.model.probes import REASONS
from container_healthcheck.model.snapshot import Snapshot, snapshot_of
from tests.readme import LANGUAGES, chapter
from tests.unit.containers import PATTERN, container
from tests.web.host import BASE, NOW, Host

PREFIX = "container_healthcheck_"


def scraped(host: Host) -> dict[tuple[str, ...], float]:
    """Each sample: its name without the prefix and its label values, and its value."""
    answer = host.get("/metrics")
    assert answer.status_code == 200
    return {
        (sample.name.removeprefix(PREFIX), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_the_metrics_of_a_host(host: Host) -> None:
    host.changed(Change(5.5, "b", 0, 13, "it died"))
    host.apply(
        Message(
            last_probes={"a": LastProbe("502 Bad Gateway", 7.25, 0.5)},
            failures={"a": {"http_502": 3, "timeout": 1}, "gone": {"timeout": 9}},
            events={"die": 2, "start": 4},
        )
    )

    assert scraped(host) == {
        ("build_info", __version__): 1,
        ("docker_up",): 1,
        ("picture_age_seconds",): 0,
        ("waiting_clients",): 0,
        ("app_up", "a"): 1,
        ("app_up", "b"): 0,
        ("app_code", "a"): 0,
        ("app_code", "b"): 13,
        ("app_drained", "a"): 0,
        ("app_drained", "b"): 0,
        ("app_containers", "a", "running"): 1,
        ("app_containers", "b", "running"): 0,
        ("app_containers", "b", "exited"): 1,
        ("app_changes_total", "a"): 0,
        ("app_changes_total", "b"): 1,
        ("app_last_change_timestamp_seconds", "b"): 5.5,
        ("probe_success", "a"): 0,
        ("probe_duration_seconds", "a"): 0.5,
        ("probe_failures_total", "a", "http_502"): 3,
        ("probe_failures_total", "a", "timeout"): 1,
        ("docker_events_total", "die"): 2,
        ("docker_events_total", "start"): 4,
    }


def test_the_names_labels_and_kinds_are_a_contract(host: Host) -> None:
    text = host.get("/metrics").text

    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    helps = dict(re.findall(r"^# HELP (\S+) (.+)$", text, re.MULTILINE))

    counters = {"app_changes_total", "probe_failures_total", "docker_events_total"}
    gauges = {
        "build_info",
        "docker_up",
        "picture_age_seconds",
        "waiting_clients",
        "app_up",
        "app_code",
        "app_drained",
        "app_containers",
        "app_last_change_timestamp_seconds",
        "probe_success",
        "probe_duration_seconds",
    }
    assert kinds == {
        **{PREFIX + name: "counter" for name in counters},
        **{PREFIX + name: "gauge" for name in gauges},
    }
    assert helps.keys() == kinds.keys()
    assert all("econds" in helps[name] for name in kinds if "seconds" in name)


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text; version=1.0.0",
        "application/vnd.google.protobuf",
        "text/html",
        "application/json",
        "*/*;q=nonsense",
        "",
    ],
)
def test_it_is_text_whatever_is_accepted(host: Host, accept: str) -> None:
    plain = host.get("/metrics?name[]=x&format=json")
    answer = host.get("/metrics", headers={"Accept": accept})

    assert (answer.status_code, answer.data) == (200, plain.data)
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-store"
    assert "_created" not in answer.text and "# EOF" not in answer.text


def test_head_is_get_without_the_body(host: Host) -> None:
    head = host.client.head(f"{BASE}/metrics")

    assert (head.status_code, head.data) == (200, b"")
    assert head.headers["Content-Length"] == host.get("/metrics").headers["Content-Length"]


def test_without_docker_the_scrape_says_so(blind: Host) -> None:
    values = scraped(blind)

    assert values["docker_up",] == 0
    assert not any(name[0].startswith(("app_", "picture_")) for name in values)


def test_a_stale_picture_has_an_age(host: Host) -> None:
    host.shows(snapshot_of([container("a-1")], PATTERN, confirmed_at=NOW - 40))

    values = scraped(host)

    assert values["picture_age_seconds",] == 40
    assert (values["app_up", "a"], values["app_code", "a"]) == (0, 11)


def test_a_drain_is_no_trouble_in_itself(host: Host) -> None:
    host.drain(**{HOST: Mark(0, None, "")})

    values = scraped(host)

    assert (values["app_drained", "a"], values["app_code", "a"]) == (1, 15)


def test_nothing_that_comes_from_outside_is_a_label(host: Host) -> None:
    hostile = '"}\n# TYPE x gauge'
    host.shows(
        snapshot_of(
            [container("a-1", image=hostile, state=hostile, status=hostile)],
            PATTERN,
            confirmed_at=NOW,
        )
    )

    values = scraped(host)

    assert values["app_containers", "a", "other"] == 1
    assert "TYPE x" not in host.get("/metrics").text


def test_a_host_without_containers_has_metrics(host: Host) -> None:
    host.shows(Snapshot(confirmed_at=NOW))

    assert scraped(host) == {
        ("build_info", __version__): 1,
        ("docker_up",): 1,
        ("picture_age_seconds",): 0,
        ("waiting_clients",): 0,
    }


# The labels of each metric, as this host shows them.
SHOWN = re.compile(r"^(\w+)(?:\{(.*)\})? ", re.MULTILINE)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_documents_name_every_metric_and_its_labels(host: Host, language: str) -> None:
    host.changed(Change(5.5, "b", 0, 13, "it died"))
    probes = {"a": LastProbe(None, 7.25, 0.5)}
    host.apply(Message(last_probes=probes, failures={"a": {"timeout": 1}}, events={"die": 2}))
    shown = {
        (name, ",".join(re.findall(r"(\w+)=", labels)))
        for name, labels in SHOWN.findall(host.get("/metrics").text)
    }

    text = chapter(language, "metrics.md").read_text()
    rows = re.findall(r"^\| `(\w+?)(?:\{(.*)\})?` \|", text, re.MULTILINE)

    assert set(rows) == shown
    assert len(rows) == len(shown)
    assert all(f"`{reason}`" in text for reason in REASONS)
