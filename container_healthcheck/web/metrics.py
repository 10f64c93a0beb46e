"""The metrics, for monitoring systems: computed from the board when they are asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from container_healthcheck import __version__
from container_healthcheck.board import Board
from container_healthcheck.model.counters import Counters
from container_healthcheck.model.history import History
from container_healthcheck.model.verdict import Code, Verdict

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "container_healthcheck_"

# Docker's words; any other counts as the last one.
STATES = ("created", "running", "paused", "restarting", "removing", "exited", "dead", "other")
_APP = ("app_code",)

_Rows = Iterable[tuple[tuple[str, ...], float]]


class Metrics:
    """The text that Prometheus and those who understand it read, in its version 0.0.4."""

    def __init__(self, board: Board) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_BoardCollector(board))

    def text(self) -> bytes:
        """What is true now."""
        return generate_latest(self._registry)


class _BoardCollector(Collector):
    def __init__(self, board: Board) -> None:
        self._board = board

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        verdicts = self._board.report().verdicts
        state = self._board.state
        yield from _host(self._board)
        yield from _apps(verdicts, state.history)
        yield from _probes(verdicts, state.counters)
        yield _counter(
            "docker_events",
            "Container events received from the Docker engine since the service started",
            (((action,), count) for action, count in sorted(state.counters.events.items())),
            ("action",),
        )


def _host(board: Board) -> Iterator[Metric]:
    snapshot, age = board.state.snapshot, board.age
    yield _gauge(
        "build_info", "Always 1; the label is the version", [((__version__,), 1)], ("version",)
    )
    is_up = snapshot.fault is None and age is not None
    yield _gauge("docker_up", "1 when the Docker engine answers, else 0", [((), is_up)])
    yield _gauge(
        "picture_age_seconds",
        "Seconds since the Docker engine last listed all containers; not there before the first",
        [] if age is None else [((), round(age, 3))],
    )
    yield _gauge(
        "waiting_clients",
        "Clients that wait for a change at the worker process that answers",
        [((), board.waiting_clients)],
    )


def _apps(verdicts: Mapping[str, Verdict], history: History) -> Iterator[Metric]:
    yield _gauge(
        "app_up",
        "1 when requests for the app should come to this host, else 0",
        (((each,), verdict.is_healthy) for each, verdict in verdicts.items()),
        _APP,
    )
    yield _gauge(
        "app_code",
        "The code of the app's check: 0 healthy, 10 and 11 Docker is away, 12 no container,"
        " 13 none healthy, 14 the app does not answer, 15 drained",
        (((each,), int(verdict.code)) for each, verdict in verdicts.items()),
        _APP,
    )
    yield _gauge(
        "app_drained",
        "1 when the app or the whole host is drained on purpose, else 0",
        (((each,), verdict.code is Code.DRAINED) for each, verdict in verdicts.items()),
        _APP,
    )
    yield _gauge(
        "app_containers",
        "The app's containers in each of Docker's states; those running always, others when any",
        (
            ((each, state), count)
            for each, verdict in verdicts.items()
            for state, count in _states(verdict)
        ),
        ("app_code", "state"),
    )
    yield _counter(
        "app_changes",
        "Changes of the app's code",
        (((each,), history.counts.get(each, 0)) for each in verdicts),
        _APP,
    )
    since = {each: history.since(each, verdict.code) for each, verdict in verdicts.items()}
    yield _gauge(
        "app_last_change_timestamp_seconds",
        "When the app's code last changed, in seconds since the epoch; not there when not known",
        (((each,), at) for each, at in since.items() if at is not None),
        _APP,
    )


def _probes(verdicts: Mapping[str, Verdict], counters: Counters) -> Iterator[Metric]:
    probes = {each: counters.probes[each] for each in verdicts if each in counters.probes}
    yield _gauge(
        "probe_success",
        "1 when the last probe of the app passed, else 0; only of apps that are probed",
        (((each,), probe.seen is None) for each, probe in probes.items()),
        _APP,
    )
    yield _gauge(
        "probe_duration_seconds",
        "How long the last probe of the app took, in seconds",
        (((each,), probe.seconds) for each, probe in probes.items()),
        _APP,
    )
    yield _counter(
        "probe_failures",
        "Probes of the app that failed since the service started, by what was seen",
        (
            ((each, reason), count)
            for each in verdicts
            for reason, count in sorted(counters.failures.get(each, {}).items())
        ),
        ("app_code", "reason"),
    )


def _states(verdict: Verdict) -> Iterator[tuple[str, int]]:
    found = Counter(
        each.state if each.state in STATES else STATES[-1] for each in verdict.containers
    )
    return ((state, found[state]) for state in STATES if found[state] or state == "running")


def _gauge(name: str, meaning: str, rows: _Rows, labels: tuple[str, ...] = ()) -> Metric:
    return _filled(GaugeMetricFamily(PREFIX + name, meaning, labels=labels), rows)


def _counter(name: str, meaning: str, rows: _Rows, labels: tuple[str, ...]) -> Metric:
    return _filled(CounterMetricFamily(PREFIX + name, meaning, labels=labels), rows)


def _filled(family: GaugeMetricFamily | CounterMetricFamily, rows: _Rows) -> Metric:
    for labels, value in rows:
        family.add_metric(labels, value)
    return family
