"""Only observed: decided, counted and logged, and routed as before."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sandbox.gateway import Gateway
from sandbox.waiting import wait_until
from tests.gateway.asking import APP, ask_often, await_up, lines_about
from tests.gateway.made_up import MadeUp, Verdicts

METRIC = "container_healthcheck_gateway_"


def _observing(text: str) -> str:
    """The location with the variable, the upstream with the line that upstream.conf has for it."""
    text = text.replace(
        "set $appo_servers", "set $container_healthcheck_observe on; set $appo_servers"
    )
    lines = [line.removeprefix("# observe: ") for line in text.splitlines()]
    own = (
        'balancer_by_lua_block { pcall(function() require("container_healthcheck").balance() end) }'
    )
    return "\n".join(line for line in lines if line != own)


@pytest.fixture
def gateway(three: list[MadeUp], way: str) -> Iterator[Gateway]:
    servers = three[:2]
    peers = "".join(f"server {each.name} max_fails=0; " for each in servers)
    include = f"upstream {APP} {{ {peers} }}" if way == "location" else ""
    with Gateway([each.name for each in servers], include=include, edit=_observing) as gateway:
        await_up(gateway, *servers)
        yield gateway


def counted(gateway: Gateway) -> dict[str, float]:
    """What was counted for the app."""
    text = gateway.get("/container-healthcheck-gateway?format=prometheus").body.decode()
    return {
        each.name.removeprefix(METRIC) + each.labels.get("choice", ""): each.value
        for family in text_string_to_metric_families(text)
        for each in family.samples
        if each.labels.get("app_code") == APP and each.name.endswith("_total")
    }


def test_it_routes_as_before(
    gateway: Gateway, three: list[MadeUp], verdicts: list[Verdicts]
) -> None:
    first, second, _ = three
    verdicts[0].change({APP: 13})
    gateway.await_state(first.name, APP, "down")
    before = counted(gateway).get("observed_elsewhere_total", 0)
    answers = ask_often(gateway, 20)
    assert set(answers) == {first.address, second.address}
    first.status = 502
    failed = ask_often(gateway, 20, "POST")["502"]
    assert failed > 0

    def elsewhere() -> float:
        return counted(gateway).get("observed_elsewhere_total", 0)

    wait_until(elsewhere, (before + answers[first.address] + failed).__le__, "the counts")
    found = counted(gateway)
    assert found["observed_avoidable_total"] == failed
    assert found["requests_totaldown"] >= answers[first.address] + failed
    said = gateway.get("/container-healthcheck-gateway?format=fleet").json["observed"]
    assert said == {
        "elsewhere": found["observed_elsewhere_total"],
        "avoidable": found["observed_avoidable_total"],
    }
    about = lines_about(gateway, "only observed")
    assert len(about) == 1 and first.name in about[0] and second.name in about[0], about


def test_nothing_would_have_gone_elsewhere_when_all_is_well(
    gateway: Gateway, three: list[MadeUp]
) -> None:
    def seen() -> float:
        return counted(gateway).get("requests_totalup", 0)

    ask_often(gateway, 10)
    wait_until(seen, lambda number: number >= 10, "what came while not all was known")
    before, up = counted(gateway).get("observed_elsewhere_total"), seen()
    ask_often(gateway, 30)
    wait_until(seen, lambda number: number >= up + 30, "counts")
    assert counted(gateway).get("observed_elsewhere_total") == before
