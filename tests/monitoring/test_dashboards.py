"""Every query of the dashboards finds data where a real Prometheus has seen a real life.

Grafana itself is in no Debian: what it would ask is asked here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.running_service import SOURCE
from tests.monitoring.life import APPS, FIRST, SECOND, Life

DASHBOARDS = sorted((SOURCE / "packaging" / "grafana").glob("*.json"))
NAMES = [path.stem for path in DASHBOARDS]
BY_FILE = pytest.mark.parametrize("path", DASHBOARDS, ids=NAMES)
# What the variables stand for, where all is chosen or the first server.
VALUES = {
    "$job": ".*",
    "$app_code": ".*",
    "$instance": FIRST,
    "$__rate_interval": "10s",
}


def loaded(path: Path) -> Any:
    return json.loads(path.read_text())


def queries(dashboard: Any) -> Iterator[tuple[str, str]]:
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def filled_in(expression: str) -> str:
    for name, value in VALUES.items():
        expression = expression.replace(name, value)
    assert "$" not in expression, expression
    return expression


QUERIES = [
    pytest.param(expression, id=f"{path.stem}: {title}")
    for path in DASHBOARDS
    for title, expression in queries(loaded(path))
]


def test_there_are_two() -> None:
    assert NAMES == ["fleet", "host"]


@pytest.mark.parametrize("expression", QUERIES)
def test_a_query_finds_data(life: Life, expression: str) -> None:
    # Not where only the zero for nothing would be found.
    alone = filled_in(expression).removesuffix(" or vector(0)")
    found = life.prometheus.series(alone, seconds=600, step=1)

    assert any(float(value) >= 0 for each in found for _, value in each["values"])


@BY_FILE
def test_the_variables_offer_what_there_is(life: Life, path: Path) -> None:
    offered = {}
    for variable in loaded(path)["templating"]["list"]:
        if variable["type"] == "query":
            asked = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
            assert asked
            found = life.prometheus.query(f"count by ({asked[2]}) ({filled_in(asked[1])})")
            offered[variable["name"]] = {labels[asked[2]] for labels, _ in found}
    assert offered.pop("app_code") == {*APPS}
    assert offered in ({"job": {"container-healthcheck"}}, {"instance": {FIRST, SECOND}})


@BY_FILE
def test_a_dashboard_can_be_imported_anywhere(path: Path) -> None:
    dashboard = loaded(path)
    source, *variables = dashboard["templating"]["list"]
    names = {f"${each['name']}" for each in variables} | {"$__rate_interval"}

    assert (source["name"], source["type"]) == ("datasource", "datasource")
    for each in [*variables, *dashboard["panels"], *targets(dashboard)]:
        assert each["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    for _, expression in queries(dashboard):
        assert {*re.findall(r"\$\w+", expression)} <= names, expression
    assert "id" not in dashboard and dashboard["uid"] == f"container-healthcheck-{path.stem}"


@BY_FILE
def test_a_dashboard_is_laid_out_and_named_in_both_languages(path: Path) -> None:
    panels = loaded(path)["panels"]
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len({*cells}) and max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert re.search("[一-鿿]", panel["description"]) and panel["title"].isascii()


def targets(dashboard: Any) -> list[Any]:
    return [target for panel in dashboard["panels"] for target in panel["targets"]]


def test_they_show_every_metric(life: Life) -> None:
    """Itself, or what is recorded of it."""
    shown = " ".join(str(each.values[0]) for each in QUERIES)
    names = {
        labels["__name__"]
        for labels, _ in life.prometheus.query(
            'count by (__name__) ({__name__=~"container_healthcheck_.*"})'
        )
    }
    missing = {each for each in names if each not in shown}
    assert missing <= {
        "container_healthcheck_app_up",
        "container_healthcheck_gateway_app_state",
        "container_healthcheck_gateway_server_known",
    }
