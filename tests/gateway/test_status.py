"""What the gateway says of the fleet: a page for people, JSON as before, metrics for machines.

The page itself, which reads the fleet as JSON, is tested in a browser: tests/browser/test_fleet.py.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sandbox.gateway import Gateway
from sandbox.running_service import Answer, ask
from sandbox.waiting import wait_for, wait_until
from tests.gateway.asking import APP, ask_often, await_up, from_upstream, lines_about, stand_in
from tests.gateway.made_up import MadeUp, Verdicts
from tests.readme import LANGUAGES, chapter

STATUS = "/container-healthcheck-gateway"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"
JSON, HTML = "application/json", "text/html; charset=utf-8"
TEXT = "text/plain; version=0.0.4; charset=utf-8"
METRIC = "container_healthcheck_gateway_"
OTHER = "bk_sops"
Series = tuple[str, frozenset[tuple[str, str]]]
NAMES = [f"made_up_{number}" for number in range(50)]


@pytest.fixture
def gateway(three: list[MadeUp]) -> Iterator[Gateway]:
    """A gateway that knows that the app is up on all three servers."""
    with Gateway([each.name for each in three]) as gateway:
        await_up(gateway, *three)
        yield gateway


def ask_for(gateway: Gateway, query: str = "", **headers: str) -> Answer:
    """The status in some form."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return gateway.get(STATUS + query, headers=named)


def fleet(gateway: Gateway) -> dict[str, Any]:
    """What the page reads."""
    answer = ask_for(gateway, "?format=fleet")
    assert (answer.status, answer.headers["Content-Type"]) == (200, JSON), answer
    return dict(answer.json)


def cells(gateway: Gateway, app: str = APP) -> list[Any]:
    """Those of an app: state (0 up, 1 unknown, 2 down), code, since when, and flags."""
    return list(fleet(gateway)["apps"][app])


def metrics(gateway: Gateway, query: str = "") -> dict[Series, float]:
    """All samples, by name and labels; each family has a HELP and a TYPE."""
    answer = ask_for(gateway, f"?format=prometheus{query}")
    assert (answer.status, answer.headers["Content-Type"]) == (200, TEXT), answer
    text = answer.body.decode()
    families = list(text_string_to_metric_families(text))
    assert all(each.documentation and each.type in ("gauge", "counter") for each in families)
    samples = [each for family in families for each in family.samples]
    found = {(each.name, frozenset(each.labels.items())): each.value for each in samples}
    assert len(found) == len(samples), "a series twice"
    return found


def value(found: Mapping[Series, float], metric: str, **labels: str) -> float:
    return found[metric, frozenset(labels.items())]


def counted(gateway: Gateway, app: str = OTHER) -> float:
    """How many requests for the app were counted, of whatever choice."""
    return sum(
        number
        for (name, labels), number in metrics(gateway).items()
        if name == f"{METRIC}requests_total" and ("app_code", app) in labels
    )


def await_counted(gateway: Gateway, number: float) -> None:
    wait_until(lambda: counted(gateway), number.__eq__, f"{number} requests to be counted")


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (BROWSER, HTML),
        ("text/html", HTML),
        ("TEXT/HTML", HTML),
        ("application/json, text/html", HTML),
        ("*/*;q=0.1, text/html;q=0.1", HTML),
        ("application/json, text/html;q=0.9", JSON),
        ("text/html;q=0, */*", JSON),
        ("text/html;q=0.5, */*", JSON),
        ("text/*", JSON),
        ("*/*", JSON),
        ("application/json", JSON),
        ("image/png", JSON),
        ("", JSON),
        (",;q=,;;/,text/html;q=nonsense", JSON),
        ("text/html;q=1.2.3", JSON),
        ("a" * 7000, JSON),
        ("text/html," * 700, HTML),
    ],
)
def test_what_is_accepted(gateway: Gateway, accept: str, kind: str) -> None:
    answer = ask_for(gateway, Accept=accept)
    assert (answer.status, answer.headers["Content-Type"]) == (200, kind)
    assert "Accept" in answer.headers["Vary"]


@pytest.mark.parametrize("accept", [None, BROWSER, "application/json", "nonsense"])
@pytest.mark.parametrize(
    ("query", "kind", "status"),
    [
        ("?format=json", JSON, 200),
        ("?format=html", HTML, 200),
        ("?format=prometheus", TEXT, 200),
        ("?format=xml", JSON, 400),
        ("?format=%3Cscript%3E", JSON, 400),
        ("?format=json&app_code=%00%ff", JSON, 400),
        ("?format=prometheus&app_code=a%20b", JSON, 400),
        ("?format=json&app_code=" + "a" * 129, JSON, 400),
        ("?format=html&app_code=%00%ff%3Cscript%3E", HTML, 200),
        ("?format=html&lang=%00%ff", HTML, 200),
        ("?format=html&trouble=%00%ff", HTML, 200),
        ("?format=json&lang=xx", JSON, 200),
        ("?format=fleet&lang=xx", JSON, 200),
        ("?format=prometheus&series=all", TEXT, 200),
    ],
)
def test_what_is_asked_for(
    gateway: Gateway, query: str, kind: str, status: int, accept: str | None
) -> None:
    answer = ask_for(gateway, query, **({"Accept": accept} if accept else {}))
    assert (answer.status, answer.headers["Content-Type"]) == (status, kind)
    assert answer.headers["Cache-Control"] == "no-store"
    if kind == JSON:
        assert ("error" in answer.json) == (status == 400)
    assert answer.body.count(b"<script>") == (kind == HTML)
    head = gateway.get(STATUS + query, method="HEAD", headers={"Accept": accept} if accept else {})
    assert (head.status, head.headers["Content-Type"], head.body) == (status, kind, b"")
    assert not any("internal error" in line for line in gateway.changes())


def test_json_is_as_before(gateway: Gateway, three: list[MadeUp]) -> None:
    plain, asked = ask_for(gateway).json, ask_for(gateway, "?format=json", Accept=BROWSER).json
    for said in (plain, asked):
        assert set(said) == {"shared_dictionary", "servers"}
        assert [each["server"] for each in said["servers"]] == [each.name for each in three]
        for server in said["servers"]:
            assert set(server) == {"server", "state", "heard_seconds_ago", "watched_by", "apps"}
            assert server["apps"] == {APP: {"state": "up", "code": 0}}
    none = ask_for(gateway, "?app_code=no_such_app").json
    assert [each["apps"] for each in none["servers"]] == [{}, {}, {}]


def test_the_fleet(gateway: Gateway, three: list[MadeUp], verdicts: list[Verdicts]) -> None:
    """Each app has a cell for each server; only what a server lists is there."""
    codes = {"well": [0, 0, 0], "partly": [0, 14, 0], "nowhere": [13, 14, 12]}
    for number, each in enumerate(verdicts):
        each.change({APP: 0, **{app: said[number] for app, said in codes.items()}})
    verdicts[2].change({APP: 0, "well": 0, "nowhere": 12})
    gateway.await_state(three[2].name, "nowhere", "down")
    for server in three:
        gateway.await_state(server.name, "well", "up")
    said = fleet(gateway)
    assert [each["server"] for each in said["servers"]] == [each.name for each in three]
    assert {each["state"] for each in said["servers"]} == {"known"}
    found = {app: [each and each[:2] for each in row] for app, row in said["apps"].items()}
    assert found == {
        APP: [[0, 0]] * 3,
        "well": [[0, 0]] * 3,
        "partly": [[0, 0], [2, 14], None],
        "nowhere": [[2, 13], [2, 14], [2, 12]],
    }
    assert all(
        0 <= said["now"] - since < 60
        for row in said["apps"].values()
        for _, _, since, _ in filter(None, row)
    )
    assert said["reasons"]["13"] == "no healthy container"
    assert said["shared_dictionary"] is True


def test_nothing_comes_from_elsewhere(gateway: Gateway) -> None:
    answer = ask_for(gateway, Accept=BROWSER)
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    text = answer.body.decode()
    inline = re.findall(r"<(style|script)>(.*?)</", text, re.DOTALL)
    assert [kind for kind, _ in inline] == re.findall(r"<(style|script)", text)
    for kind, content in inline:
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}';" in policy, (
            f"the first line of page.html says another hash of its {kind}: sha256-{digest}"
        )
    assert text.startswith("<!DOCTYPE html>")
    assert not re.search(r"\s(src|style|on\w+)=\"", text.partition("<script")[0])
    assert not re.search(r"https?://", text)


HOSTILE = "<script>alert('1')</script>&\\'"


def test_hostile_names_and_reasons(three: list[MadeUp]) -> None:
    """An upstream may have any name; a server may say anything. All of it stays text."""
    good, bad, _ = three
    bad.say = lambda handler: handler.raw(b"HTTP/1.1 200 OK\r\n\r\n<script>alert(1)</script>")
    peers = "".join(f'{{ addr = "{each.name}", name = "x", weight = 1 }},' for each in (good, bad))
    record = json.dumps(
        {"state": "known", "since": 1, "error": HOSTILE, "apps": {HOSTILE: [13, 1], APP: [0, 1]}}
    )
    # What may be in the store, as harmful as it may be.
    plant = f"""
    server {{
        listen 127.0.0.1:8090;
        location / {{
            content_by_lua_block {{
                local dict = ngx.shared.container_healthcheck
                dict:set("record:{good.name}", {json.dumps(record)})
                dict:incr("number:{good.name}", 1)
                dict:incr("version", 1)
            }}
        }}
    }}"""
    include = stand_in({APP: peers}) + plant
    with Gateway([good.name], include=include, edit=from_upstream) as gateway:
        await_up(gateway, good)
        up = (f"{METRIC}app_up", frozenset({("server", good.name), ("app_code", HOSTILE)}))

        def planted(read: Callable[[Gateway], Any]) -> Any:
            ask(8090, "/")  # its watcher may just have put things right
            return read(gateway)

        wait_until(lambda: planted(fleet)["apps"], lambda apps: HOSTILE in apps, "the hostile app")
        wait_until(lambda: planted(metrics).get(up), (0.0).__eq__, "the same in the metrics")
        assert HOSTILE in planted(Gateway.status)[good.name]["apps"]


def test_a_server_of_which_nothing_is_known(gateway: Gateway, three: list[MadeUp]) -> None:
    three[1].say = lambda handler: handler.answer(b"nonsense", 404)
    gateway.await_state(three[1].name, APP, "unknown")
    said = fleet(gateway)
    assert said["servers"][1]["state"] == "unknown"
    assert said["servers"][1]["reason"].startswith("status 404")
    assert [each[0] for each in said["apps"][APP]] == [0, 1, 0]
    found = metrics(gateway, "&series=all")
    name = three[1].name
    assert value(found, f"{METRIC}server_known", server=name) == 0
    assert value(found, f"{METRIC}app_up", server=name, app_code=APP) == 0
    assert value(found, f"{METRIC}app_state", server=name, app_code=APP, state="unknown") == 1
    assert value(found, f"{METRIC}server_heard_seconds", server=name) >= 0


def test_since_when_is_kept_while_nothing_changes(
    gateway: Gateway, three: list[MadeUp], verdicts: list[Verdicts]
) -> None:
    def since() -> list[int]:
        return [each[2] for each in cells(gateway)]

    before = since()
    assert len(before) == 3
    verdicts[0].change({APP: 0, OTHER: 0})  # everything is written again
    gateway.await_state(three[0].name, OTHER, "up")
    gateway.reload()
    await_up(gateway, *three)
    assert since() == before
    verdicts[0].change({APP: 14, OTHER: 0})
    gateway.await_state(three[0].name, APP, "down")
    assert since()[1:] == before[1:]
    assert since()[0] >= before[0]


def test_an_app_that_vanished_is_still_shown(
    gateway: Gateway, three: list[MadeUp], verdicts: list[Verdicts]
) -> None:
    """As long as somebody asks for it."""
    wait_for(lambda: counted(gateway, APP) > 0, "the requests to be counted")
    for each in verdicts:
        each.change({OTHER: 0})
    for server in three:
        gateway.await_state(server.name, OTHER, "up")
        gateway.await_state(server.name, APP, "down")
    assert [each[:2] for each in cells(gateway)] == [[2, 12]] * 3
    found = metrics(gateway)
    assert value(found, f"{METRIC}app_up", server=three[0].name, app_code=APP) == 0


def test_the_metrics(gateway: Gateway, three: list[MadeUp], verdicts: list[Verdicts]) -> None:
    verdicts[0].change({APP: 13})
    gateway.await_state(three[0].name, APP, "down")
    found = metrics(gateway)
    for server, up in zip(three, (0, 1, 1), strict=True):
        assert value(found, f"{METRIC}server_known", server=server.name) == 1
        assert value(found, f"{METRIC}server_heard_seconds", server=server.name) < 60
        assert value(found, f"{METRIC}app_up", server=server.name, app_code=APP) == up
    assert value(found, f"{METRIC}app_down_everywhere", app_code=APP) == 0
    assert value(found, f"{METRIC}stock_total") == 0
    only = metrics(gateway, "&app_code=no_such_app")
    assert {dict(labels).get("app_code") for _, labels in only} == {None}


def test_one_series_for_each_app_and_server(gateway: Gateway, three: list[MadeUp]) -> None:
    """All that version 2.1.0 had is there on request."""
    of_both = [
        name for name, labels in metrics(gateway) if {"server", "app_code"} <= set(dict(labels))
    ]
    assert of_both == [f"{METRIC}app_up"] * len(three)
    found = metrics(gateway, "&series=all")
    for server in three:
        on = {"server": server.name, "app_code": APP}
        for state in ("up", "unknown", "down"):
            assert value(found, f"{METRIC}app_state", **on, state=state) == (state == "up")
        peer = {"name": APP, "endpoint": server.name, "role": "PRIMARY"}
        assert value(found, "nginx_upstream_status_info", **peer, status="UP") == 1
        assert value(found, "nginx_upstream_status_info", **peer, status="DOWN") == 0
    assert value(found, "nginx_upstream_status_info", name=APP, status="UP") == 1
    assert value(found, "nginx_upstream_status_info", name=APP, status="DOWN") == 0


def test_all_servers_are_down(
    gateway: Gateway, three: list[MadeUp], verdicts: list[Verdicts]
) -> None:
    """Requests go to all of them, and both the metrics and the log say so, each time anew."""
    for times in (1, 2):
        for server, each in zip(three, verdicts, strict=True):
            each.change({APP: 13})
            gateway.await_state(server.name, APP, "down")
        assert set(ask_often(gateway, 12)) == {each.address for each in three}
        assert value(metrics(gateway), f"{METRIC}app_down_everywhere", app_code=APP) == 1
        about = lines_about(gateway, "down on all of its servers", times)
        assert len(about) == times and about[-1].startswith(APP), about
        verdicts[0].change({APP: 0})
        gateway.await_state(three[0].name, APP, "up")
        ask_often(gateway, 12)
        assert value(metrics(gateway), f"{METRIC}app_down_everywhere", app_code=APP) == 0


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_documents_name_every_metric_and_its_labels(gateway: Gateway, language: str) -> None:
    wait_for(lambda: counted(gateway, APP) > 0, "the requests to be counted")
    rows = re.findall(
        r"^\| `(\w+_\w+?)(?:\{(.*)\})?` \|",
        chapter(language, "gateway.md").read_text(),
        re.MULTILINE,
    )
    described = {(name, frozenset(filter(None, labels.split(",")))) for name, labels in rows}
    shown = {(name, frozenset(dict(labels))) for name, labels in metrics(gateway, "&series=all")}
    assert described == shown


def test_backups_are_called_so(three: list[MadeUp]) -> None:
    first, second, _ = three
    peers = (
        f'{{ addr = "{first.name}", name = "x", weight = 1 }},'
        f'{{ addr = "{second.name}", name = "x", weight = 1, backup = true }}'
    )
    include = stand_in({APP: peers})
    with Gateway([first.name], include=include, edit=from_upstream) as gateway:
        await_up(gateway, first, second)
        found = metrics(gateway, "&series=all")
        peer = {"name": APP, "endpoint": second.name, "role": "BACKUP", "status": "UP"}
        assert value(found, "nginx_upstream_status_info", **peer) == 1


def add_other(gateway: Gateway, servers: list[MadeUp], verdicts: list[Verdicts]) -> None:
    """An app that nobody has asked for yet, up on all servers."""
    for server, each in zip(servers, verdicts, strict=True):
        each.change({APP: 0, OTHER: 0})
        gateway.await_state(server.name, OTHER, "up")


def ask_other(gateway: Gateway, times: int) -> None:
    assert {gateway.get(f"/o/{OTHER}/").status for _ in range(times)} == {200}


def test_every_request_is_counted_once(
    gateway: Gateway, three: list[MadeUp], verdicts: list[Verdicts]
) -> None:
    def choices() -> list[float]:
        found = metrics(gateway)
        return [
            value(found, f"{METRIC}requests_total", app_code=OTHER, choice=choice)
            for choice in ("up", "unknown", "down")
        ]

    add_other(gateway, three, verdicts)
    ask_other(gateway, 100)
    await_counted(gateway, 100)
    assert choices() == [100, 0, 0]
    for server, each in zip(three, verdicts, strict=True):
        each.change({APP: 0, OTHER: 14})
        gateway.await_state(server.name, OTHER, "down")
    ask_other(gateway, 20)
    await_counted(gateway, 120)
    assert choices() == [100, 0, 20]


def test_retries_are_counted(gateway: Gateway, three: list[MadeUp]) -> None:
    three[0].status = 502
    assert set(ask_often(gateway, 12)) == {three[1].address, three[2].address}

    def retries() -> float:
        return metrics(gateway).get((f"{METRIC}retries_total", frozenset({("app_code", APP)})), 0)

    wait_for(lambda: retries() >= 1, "the retries to be counted")


def test_counters_survive_reloads(
    gateway: Gateway, three: list[MadeUp], verdicts: list[Verdicts]
) -> None:
    """And nothing that was counted just before one is lost."""
    add_other(gateway, three, verdicts)
    before = 0.0
    for number in range(1, 4):
        ask_other(gateway, 30)
        gateway.reload()
        assert counted(gateway) >= before
        await_counted(gateway, before := 30.0 * number)


def test_made_up_names_are_not_counted(
    gateway: Gateway, three: list[MadeUp], verdicts: list[Verdicts]
) -> None:
    add_other(gateway, three, verdicts)
    for name in NAMES:
        gateway.get(f"/o/{name}/")
    # Who has added these has added what came before, too.
    ask_other(gateway, 40)
    await_counted(gateway, 40)
    wait_for(lambda: counted(gateway, APP) > 0, "the fixture's requests to be counted")
    assert {dict(labels).get("app_code") for _, labels in metrics(gateway)} == {APP, OTHER, None}
    assert set(fleet(gateway)["apps"]) == {APP, OTHER}


def _no_servers(text: str) -> str:
    return text.replace("set $appo_servers", "#set $appo_servers")


def test_the_stock_way_is_counted(three: list[MadeUp]) -> None:
    include = f"upstream {APP} {{ server {three[0].name}; }}"
    with Gateway([three[0].name], include=include, edit=_no_servers) as gateway:
        ask_often(gateway, 15)
        wait_until(
            lambda: value(metrics(gateway), f"{METRIC}stock_total"), (15.0).__eq__, "15 requests"
        )


def _small(text: str) -> str:
    return text.replace("lua_shared_dict container_healthcheck 4m;",
                        "lua_shared_dict container_healthcheck 12k;")  # fmt: skip


def test_a_full_dictionary(three: list[MadeUp]) -> None:
    """Page and metrics answer with what there is."""
    many = {f"some_app_with_a_long_name_{number}": 0 for number in range(1900)}
    three[0].say = Verdicts({**many, APP: 0})
    with Gateway([three[0].name], edit=_small) as gateway:
        gateway.get(f"/o/{APP}/")
        wait_for(
            lambda: any("dictionary is full" in line for line in gateway.changes()), "a complaint"
        )
        for _ in range(10):
            assert gateway.get(f"/o/{APP}/").status == 200
            fleet(gateway)
            metrics(gateway)
        assert not any("internal error" in line for line in gateway.changes())


def test_without_a_dictionary(three: list[MadeUp]) -> None:
    include = f"upstream {APP} {{ server {three[0].name}; }}"

    def edit(text: str) -> str:
        return text.replace("lua_shared_dict container_healthcheck 4m;", "")

    with Gateway([three[0].name], include=include, edit=edit) as gateway:
        assert gateway.get(f"/o/{APP}/").status == 200
        assert fleet(gateway)["shared_dictionary"] is False
        assert metrics(gateway) == {}
        assert json.loads(ask_for(gateway).body) == {"shared_dictionary": False, "servers": []}
        assert not any("internal error" in line for line in gateway.changes())
