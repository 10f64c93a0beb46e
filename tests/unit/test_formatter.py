"""The JSON, byte for byte."""

from __future__ import annotations

import json

from container_healthcheck.model import formatter
from container_healthcheck.model.verdict import Code, judge
from tests.unit.containers import container

GO_TOOL = (
    b'{"code":0,"status":"ok","message":{"command":"sh /build/builder","container_id":"037dbe46cd",'
    b'"created":1709878119,"image":"python36e:1.1","names":"bk_iam-1709878117","port":[],'
    b'"state":"running","status":"Up 5 days"}}'
)
CONTAINER = container(id="037dbe46cd" + "0" * 54)
HEALTHY = judge("bk_iam", drain=None, fault=None, candidates=[CONTAINER], probe_failure=None)
NONE = judge("bk_iam", drain=None, fault=None, candidates=[], probe_failure=None)


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
    fields = json.loads(formatter.overview([HEALTHY, NONE]))

    assert list(fields) == ["code", "status", "message"]
    assert [list(app) for app in fields["message"]] == 2 * [
        ["app_code", "code", "status", "message", "containers"]
    ]


def test_the_ports_are_dockers_own() -> None:
    ports = [{"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"}]

    assert formatter.container_fields(container(ports=ports))["port"] == ports


def test_other_scripts_stay_readable_and_broken_text_does_no_harm() -> None:
    body = formatter.text_body(Code.DRAINED, "维护 \ud800")

    assert body == '{"code":15,"status":"error","message":"维护 ?"}'.encode()
