"""The metrics of a running service: whichever worker is scraped, and whichever dies."""

from __future__ import annotations

import http.client
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from container_healthcheck.model.probes import REASONS
from sandbox.private_engine import PrivateEngine
from sandbox.running_service import RunningService
from sandbox.waiting import wait_for, wait_until
from tests.integration.appo import Appo

Run = Callable[..., Any]
Samples = dict[tuple[str, ...], float]

PREFIX = "container_healthcheck_"
WORKERS = 4


@pytest.fixture
def appo() -> Iterator[Appo]:
    with Appo() as appo:
        yield appo


@pytest.fixture
def probing(engine: PrivateEngine, appo: Appo) -> Iterator[RunningService]:
    with RunningService(
        engine.url, workers=WORKERS, probe_url=appo.url, probe_interval=0.3, probe_fall=1
    ) as service:
        yield service


def scraped(service: RunningService) -> Samples:
    answer = service.get("/metrics")
    assert answer.status == 200
    return {
        (sample.name.removeprefix(PREFIX), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


class Scraper:
    """Scrapes all the time, each time on a new connection; notes what went back."""

    def __init__(self, service: RunningService) -> None:
        self._service = service
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.highest: Samples = {}
        self.went_back: list[str] = []
        self.scrapes = 0

    def __enter__(self) -> Scraper:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                samples = scraped(self._service)
            except (OSError, http.client.HTTPException):
                continue  # the worker that had accepted it was killed, perhaps while it answered
            self.scrapes += 1
            for key, value in samples.items():
                if not key[0].endswith("_total"):
                    continue
                if value < self.highest.get(key, 0):
                    self.went_back.append(f"{key}: {self.highest[key]} -> {value}")
                self.highest[key] = value


def test_no_counter_goes_back_while_workers_are_killed(
    probing: RunningService, appo: Appo, run: Run, app_code: str
) -> None:
    appo.serves(app_code)
    run(f"{app_code}-1")
    flapping = run(f"{app_code}flaps-1")
    probing.settle(app_code, 0)

    with Scraper(probing) as scraper:
        for worker in probing.workers():
            appo.fails(app_code)
            flapping.kill()
            probing.settle(app_code, 14)
            os.kill(worker, signal.SIGKILL)
            wait_for(
                lambda gone=worker: (  # type: ignore[misc]
                    gone not in probing.workers() and len(probing.workers()) == WORKERS
                ),
                "another worker in its place",
            )
            scrapes = scraper.scrapes
            appo.serves(app_code)
            flapping.start()
            probing.settle(app_code, 0)
            wait_for(lambda least=scrapes: scraper.scrapes > least + 10, "scrapes")  # type: ignore[misc]

        failed = ("probe_failures_total", app_code, "http_502")
        # What a worker had counted in the second before it was killed is lost.
        counted = scraper.highest.get(failed, 0)
        appo.fails(app_code)
        wait_for(lambda: scraper.highest.get(failed, 0) > counted, "failures to be counted")

    assert scraper.went_back == []
    # It has appeared, and then failed and served with each worker.
    assert scraper.highest["app_changes_total", app_code] >= 2 * WORKERS
    assert {key[2] for key in scraper.highest if key[0] == "probe_failures_total"} <= {*REASONS}


def test_events_are_counted_once(probing: RunningService, run: Run, app_code: str) -> None:
    container = run(f"{app_code}-1")
    died = ("docker_events_total", "die")
    probing.settle(app_code, 14)
    before = scraped(probing).get(died, 0)

    for _ in range(3):
        container.kill()
        container.wait()
        container.start()

    # Other tests' containers, on the same engine, may die meanwhile.
    wait_until(lambda: scraped(probing).get(died, 0), lambda now: now >= before + 3, "the deaths")


def test_each_worker_says_the_same_of_the_probes(
    probing: RunningService, appo: Appo, run: Run, app_code: str
) -> None:
    appo.serves(app_code)
    run(f"{app_code}-1")
    probing.settle(app_code, 0)

    def successes() -> set[float | None]:
        return {scraped(probing).get(("probe_success", app_code)) for _ in range(20)}

    wait_until(successes, {1.0}.__eq__, "a pass on every worker")
    appo.fails(app_code)
    wait_until(successes, {0.0}.__eq__, "a failure on every worker")
    assert 0 < scraped(probing)["probe_duration_seconds", app_code] < 60


def test_a_client_that_waits_is_counted(engine: PrivateEngine) -> None:
    headers = {"If-None-Match": "*", "Prefer": "wait=30"}
    with RunningService(engine.url, workers=1) as service:
        waiting = threading.Thread(
            target=service.get, args=["/apps/health"], kwargs={"headers": headers}
        )
        wait_for(lambda: scraped(service)["docker_up",], "the first picture")
        waiting.start()
        wait_for(lambda: scraped(service)["waiting_clients",] == 1, "the client to be counted")
        # It is answered when the service ends.
        service.stop()
        waiting.join()
