"""The HTTP answers, by Flask's own test client: no server, no Docker, no apps."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from container_healthcheck.model.counters import LastProbe
from container_healthcheck.model.drains import Mark
from container_healthcheck.model.history import Change
from container_healthcheck.model.message import Message
from container_healthcheck.model.snapshot import Snapshot
from container_healthcheck.model.verdict import Code, Fault
from tests.web.host import BASE, Host

CANNOT = Fault(Code.ENGINE_UNREACHABLE, "cannot connect to Docker")
PATHS = ["/health", "/ready", "/apps", "/apps/health", "/apps/health/a", "/changes"]


@pytest.mark.parametrize("path", PATHS)
def test_head_is_get_without_the_body(host: Host, path: str) -> None:
    get, head = host.get(path), host.client.head(BASE + path)

    assert (head.status_code, head.data) == (get.status_code, b"") == (200, b"")
    assert head.headers["Content-Length"] == get.headers["Content-Length"]
    assert get.headers["Cache-Control"] == "no-store"
    assert get.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_other_methods_are_refused(host: Host, path: str, method: str) -> None:
    answer = host.client.open(BASE + path, method=method)

    assert answer.status_code == 405
    assert answer.headers["Allow"] == "GET, HEAD"
    assert answer.get_json()["code"] == 21


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/apps/health/a", 200, 0),
        ("/apps/health/b", 503, 13),
        ("/apps/health/c", 503, 12),
        ("/apps/health/-", 400, 20),
        ("/apps/health/" + "x" * 129, 400, 20),
        ("/apps/health/a/b", 404, 21),
        ("/nothing", 404, 21),
        ("//health", 404, 21),
        ("/changes?app_code=-", 400, 20),
        ("/changes?app_code=", 400, 20),
    ],
)
def test_each_answer_has_its_code(host: Host, path: str, status: int, code: int) -> None:
    answer = host.get(path)

    assert (answer.status_code, answer.get_json()["code"]) == (status, code)
    assert list(answer.get_json())[:3] == ["code", "status", "message"]


def test_without_a_snapshot_there_is_no_verdict(blind: Host) -> None:
    for path in ("/ready", "/apps", "/apps/health", "/apps/health/a"):
        answer = blind.get(path)
        assert (answer.status_code, answer.get_json()["code"]) == (503, 10)
        assert answer.get_json()["message"] == "cannot connect to Docker"
    # What is past stays true.
    assert blind.get("/changes").status_code == 200
    assert blind.get("/health").status_code == 200


@pytest.mark.parametrize(
    "path", ["/ready", "/apps", "/apps/health", "/apps/health/a", "/changes", "/metrics", "/"]
)
def test_no_answer_is_older_than_what_the_leader_has_published(host: Host, path: str) -> None:
    host.latest = 1
    found: list[str] = []
    asking = threading.Thread(target=lambda: found.append(host.get(path).text), daemon=True)
    asking.start()
    asking.join(0.05)
    assert not found

    state, _ = host.board.state.after(Message(fault=CANNOT, changes=[Change(5, "a", 0, 10, "x")]))
    host.board.publish(replace(state, snapshot=Snapshot(fault=CANNOT), position=1), None)
    asking.join(60)

    assert found == [host.get(path).text]


def test_all_containers_stand_beside_the_verdict(host: Host) -> None:
    for flag in ("true", "TRUE", "1"):
        answer = host.get(f"/apps/health/b?all={flag}").get_json()
        assert [each["names"] for each in answer["containers"]] == ["b-1"]
    assert "containers" not in host.get("/apps/health/b?all=no").get_json()


def test_the_overview_knows_since_when_and_the_last_probe(host: Host) -> None:
    host.changed(Change(5.5, "b", 0, 13, "it died"))
    host.probed(a=LastProbe("502 Bad Gateway", 7.25, 0.5))

    a, b = host.get("/apps").get_json()["message"]

    assert (a["since"], b["since"]) == (None, 5.5)
    assert a["probe"] == {
        "passed": False,
        "seen": "502 Bad Gateway",
        "asked_at": 7.25,
        "seconds": 0.5,
    }
    assert b["probe"] is None


def test_changes_are_the_newest_first_of_all_or_of_one_app(host: Host) -> None:
    host.changed(Change(1.5, "a", None, 0, "a-1 Up"))
    host.changed(Change(2.5, "b", 0, 13, "it died"))

    assert host.get("/changes").get_json() == {
        "code": 0,
        "status": "ok",
        "message": [
            {"at": 2.5, "app_code": "b", "old": 0, "new": 13, "reason": "it died"},
            {"at": 1.5, "app_code": "a", "old": None, "new": 0, "reason": "a-1 Up"},
        ],
    }
    (only,) = host.get("/changes?app_code=a").get_json()["message"]
    assert only["app_code"] == "a"
    assert host.get("/changes?app_code=nobody").get_json()["message"] == []


@pytest.mark.parametrize(
    ("preference", "applied"),
    [
        ("wait=0", "wait=0"),
        ("WAIT = 0", "wait=0"),
        ('wait="0"; x=y', "wait=0"),
        ("respond-async, wait=0", "wait=0"),
        ("wait=0, wait=5", "wait=0"),
        ("wait=-1", None),
        ("wait=soon", None),
        ("", None),
    ],
)
def test_what_is_preferred_is_named(host: Host, preference: str, applied: str | None) -> None:
    answer = host.get("/apps/health", headers={"Prefer": preference})

    assert answer.headers.get("Preference-Applied") == applied


def test_a_known_map_is_not_sent_again(host: Host) -> None:
    etag = host.get("/apps/health").headers["ETag"]
    for known in (etag, f"W/{etag}", f'"other", {etag}'):
        answer = host.get("/apps/health", headers={"If-None-Match": known})
        assert (answer.status_code, answer.data) == (304, b"")
        assert answer.headers["ETag"] == etag
    host.drain(a=Mark(0, None, ""))

    answer = host.get("/apps/health", headers={"If-None-Match": etag, "Prefer": "wait=30"})

    assert answer.get_json()["message"] == {"a": 15, "b": 13}


def test_the_longest_wait_is_named(host: Host) -> None:
    answer = host.get("/apps/health", headers={"Prefer": "wait=999999999"})

    assert answer.headers["Preference-Applied"] == "wait=30"


def test_an_internal_error_shows_no_trace(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> None:
        raise RuntimeError("secret")

    host.board.report = broken  # type: ignore[assignment, method-assign]

    answer = host.get("/apps")

    assert answer.status_code == 500
    assert answer.get_json() == {
        "code": 21,
        "status": "error",
        "message": "internal error: see the service's log",
    }
    assert "secret" in caplog.text
