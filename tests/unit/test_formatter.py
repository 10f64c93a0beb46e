"""The JSON, byte for byte."""

from __future__ import annotations

import json
from dataclasses import replace

from container_healthcheck.model import formatter
from container_healthcheck.model.counters import LastProbe
from container_healthcheck.model.history import Change, History
from container_healthcheck.model.verdict import Code, evaluate
from tests.unit.containers import container

GO_TOOL = (
    b'{"code":0,"status":"ok","message":{"command":"sh /build/builder","container_id":"037dbe46cd",'
    b'"created":1709878119,"image":"python36e:1.1","names":"bk_iam-1709878117","port":[],'
    b'"state":"running","status":"Up 5 days"}}'
)
CONTAINER = container(id="037dbe46cd" + "0" * 54)
HEALTHY = evaluate("bk_iam", drain=None, fault=None, candidates=[CONTAINER], probe_failure=None)
NONE = evaluate("bk_iam", drain=None, fault=None, candidates=[], probe_failure=None)


def test_a_healthy_check_is_the_go_tools() -> None:
    assert formatter.verdict_body(HEALTHY) == GO_TOOL


def test_all_containers_stand_beside_the_verdict() -> None:
    fields = json.loads(formatter.verdict_body(HEALTHY, containers=True))

    assert list(fields) == ["code", "status", "message", "containers"]
    assert fields["containers"] == [fields["message"]]


def test_an_unhealthy_check_says_why() -> None:
    assert formatter.verdict_body(NONE) == (
        b'{"code":12,"status":"error","message":"no container of bk_iam on this host"}'
    )


def test_the_overview_names_the_app_first() -> None:
    other = replace(NONE, app_code="other")
    history = History().after(None, [Change(11.5, HEALTHY.app_code, 13, 0, "")])
    probes = {HEALTHY.app_code: LastProbe(None, 100.5, 0.25)}
    fields = json.loads(formatter.overview([HEALTHY, other], history, probes))

    assert list(fields) == ["code", "status", "message"]
    assert [list(app) for app in fields["message"]] == 2 * [
        ["app_code", "code", "status", "message", "containers", "since", "probe"]
    ]
    assert [app["since"] for app in fields["message"]] == [11.5, None]
    probe = {"passed": True, "seen": None, "asked_at": 100.5, "seconds": 0.25}
    assert [app["probe"] for app in fields["message"]] == [probe, None]


def test_the_ports_are_dockers_own() -> None:
    ports = [{"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"}]

    assert formatter.container_fields(container(ports=ports))["port"] == ports


def test_other_scripts_stay_readable_and_broken_text_does_no_harm() -> None:
    body = formatter.text_body(Code.DRAINED, "维护 \ud800")

    assert body == '{"code":15,"status":"error","message":"维护 ?"}'.encode()
