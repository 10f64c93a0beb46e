"""The prober in the running service: real containers, and a real nginx in front of each app."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sandbox.private_engine import PrivateEngine
from sandbox.running_service import Answer, RunningService
from sandbox.waiting import wait_until
from tests.integration.appo import Appo

Run = Callable[..., Any]


@pytest.fixture
def appo() -> Iterator[Appo]:
    with Appo() as appo:
        yield appo


@pytest.fixture
def probing(engine: PrivateEngine, appo: Appo) -> Iterator[RunningService]:
    with RunningService(
        engine.url, workers=1, probe_url=appo.url, probe_interval=0.2, probe_fall=2
    ) as service:
        yield service


def becomes(service: RunningService, app_code: str, code: int) -> Answer:
    return wait_until(
        lambda: service.check(app_code), lambda a: a.code == code, f"{app_code} to be {code}"
    )


def test_a_running_app_that_does_not_answer_is_not_healthy(
    probing: RunningService, appo: Appo, run: Run, app_code: str
) -> None:
    appo.serves(app_code)
    run(f"{app_code}-1")
    becomes(probing, app_code, 0)

    appo.fails(app_code)
    answer = becomes(probing, app_code, 14)
    assert answer.status == 503
    assert (
        f"{app_code}-1 is running, but the app does not answer: 502 Bad Gateway from"
        in (answer.json["message"])
    )
    assert probing.get("/apps/health").json["message"][app_code] == 14

    appo.serves(app_code)
    becomes(probing, app_code, 0)
    log = probing.log_text()
    assert f"{app_code}: 0 -> 14: " in log
    assert f"{app_code}: 14 -> 0: " in log


def test_a_new_app_is_healthy_once_it_answers(
    probing: RunningService, appo: Appo, run: Run, app_code: str
) -> None:
    run(f"{app_code}-1")
    wait_until(
        lambda: probing.check(app_code),
        lambda a: "nginx's own 404 page" in str(a.json["message"]),
        "the missing pid file to be noticed",
    )
    appo.is_asked(app_code, 3)
    assert probing.code(app_code) == 14

    appo.serves(app_code)
    becomes(probing, app_code, 0)


def test_a_redeploy_keeps_the_app_healthy(
    probing: RunningService, appo: Appo, run: Run, app_code: str
) -> None:
    appo.serves(app_code)
    old = run(f"{app_code}-1709878117")
    becomes(probing, app_code, 0)

    run(f"{app_code}-1709878999")
    wait_until(
        lambda: probing.check(app_code).json["message"],
        lambda message: message["names"] == f"{app_code}-1709878999",
        "the new container",
    )
    old.remove(force=True)
    wait_until(
        lambda: probing.get(f"/apps/health/{app_code}?all=true").json,
        lambda answer: len(answer["containers"]) == 1,
        "the old container to go",
    )

    codes = {line.split(f"{app_code}: ")[1] for line in journal(probing, app_code)}
    assert not any("0 -> " in line for line in codes)


def journal(service: RunningService, app_code: str) -> list[str]:
    return [line for line in service.log_text().splitlines() if f"{app_code}: " in line]


def test_a_restarted_app_is_healthy_only_when_it_answers_again(
    probing: RunningService, appo: Appo, run: Run, app_code: str
) -> None:
    """Running is not serving: `docker start` runs the whole start-up again."""
    appo.serves(app_code)
    container = run(f"{app_code}-1")
    becomes(probing, app_code, 0)

    appo.fails(app_code)
    container.restart(timeout=0)
    becomes(probing, app_code, 14)
    appo.is_asked(app_code, 3)
    assert probing.code(app_code) == 14
    appo.serves(app_code)
    becomes(probing, app_code, 0)


def test_apps_found_at_start_are_presumed_good(
    engine: PrivateEngine, appo: Appo, run: Run, app_code: str
) -> None:
    run(f"{app_code}-1")
    with RunningService(engine.url, probe_url=appo.url, probe_interval=300) as service:
        assert service.code(app_code) == 0


def test_an_app_can_have_a_path_of_its_own_or_no_probe(
    engine: PrivateEngine, appo: Appo, run: Run, app_code: str
) -> None:
    paths = f"{app_code}=/o/{app_code}/healthz,{app_code}none=-"
    with RunningService(
        engine.url, probe_url=appo.url, probe_interval=0.2, probe_paths=paths
    ) as service:
        run(f"{app_code}-1")
        run(f"{app_code}none-1")
        becomes(service, app_code, 0)
        becomes(service, f"{app_code}none", 0)

    assert appo.nginx.requests_for(f"/o/{app_code}/healthz")
    assert not appo.nginx.requests_for(f"/o/{app_code}none")


def test_the_ngx_port_flag_switches_the_probe_on(
    engine: PrivateEngine, appo: Appo, run: Run, app_code: str
) -> None:
    with RunningService(
        engine.url, flags=["-ngx-port", str(appo.port)], probe_interval=0.2
    ) as service:
        run(f"{app_code}-1")
        becomes(service, app_code, 14)
        appo.serves(app_code)
        becomes(service, app_code, 0)


# As in a worker: many hanging probes beside one that is answered, all of them greenlets.
THOUSAND = """
from gevent import monkey
monkey.patch_all()

import socket, sys
from container_healthcheck.observers.probe import probe
from container_healthcheck.observers.prober import Prober
from container_healthcheck.server.greenlets import spawn
from sandbox.waiting import wait_for

silent = socket.create_server(("127.0.0.1", 0), backlog=4096)
url = sys.argv[1]
begun, failed, answered = [], [], []

def ask(app_code):
    if app_code == "good":
        answered.append(probe(url, 30))
        return
    begun.append(app_code)
    failed.append(probe("http://127.0.0.1:%d/" % silent.getsockname()[1], 3))

prober = Prober(ask, interval=1, spawn=spawn)
for app_code in ["good", *(f"hung{number}" for number in range(1000))]:
    prober.set_live(app_code, True)
prober.start()
wait_for(lambda: len(begun) >= 1000, "a thousand probes to hang")
first = len(answered)
wait_for(lambda: len(failed) >= 2000, "each of them to fail twice")
assert answered[first:] and not any(answered), answered
assert all("no answer within 3 s" in seen for seen in failed)
print(len(answered) - first)
"""


def test_a_thousand_hanging_apps_do_not_delay_one_that_answers(appo: Appo) -> None:
    appo.serves("good")
    script = [sys.executable, "-c", THOUSAND, appo.url.format(app_code="good")]

    done = subprocess.run(script, capture_output=True, text=True, timeout=300, check=False)

    assert done.returncode == 0, done.stderr
    # Meanwhile each of the others hung at least once to its end, which takes 3 s.
    assert int(done.stdout) >= 3
