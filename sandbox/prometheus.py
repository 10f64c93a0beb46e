"""A real Prometheus with the recipes of packaging/prometheus, in a folder of its own."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from sandbox import debian_release
from sandbox.running_service import SOURCE, ask
from sandbox.waiting import free_port, wait_for

RECIPES = SOURCE / "packaging" / "prometheus"
RULES = ("container-healthcheck.rules.yml", "container-healthcheck.alerts.yml")

_TELLING = ("instance", "server", "app_code")

Sample = tuple[dict[str, str], float]


class Prometheus:
    """The Prometheus of a Debian release; a context manager.

    `targets` are addresses by job: they take the place of those in the recipe `configuration`. A
    minute of the configuration and the rules takes `minute` seconds.
    """

    def __init__(
        self,
        release: str,
        targets: Mapping[str, Sequence[str]],
        *,
        minute: float = 60,
        configuration: str = "prometheus.yml",
        rules: Sequence[str] = RULES,
    ) -> None:
        self._commands = debian_release.prometheus(release)
        self._temporary = tempfile.TemporaryDirectory(prefix="chc-prometheus-")
        self.folder = Path(self._temporary.name)
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        text = (RECIPES / configuration).read_text()
        for job, addresses in targets.items():
            text = _with_targets(text, job, addresses)
        if not rules:
            text = without_rules(text)
        (self.folder / configuration).write_text(quicker(text, minute))
        for each in rules:
            (self.folder / each).write_text(quicker((RECIPES / each).read_text(), minute))
        self._configuration = self.folder / configuration

    def __enter__(self) -> Prometheus:
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *self._commands.prometheus,
                    f"--config.file={self._configuration}",
                    f"--storage.tsdb.path={self.folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                ],
                stdout=log,
                stderr=log,
            )
        try:
            wait_for(self._is_ready, "Prometheus to be ready")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._temporary.cleanup()

    def log_text(self) -> str:
        """What it has written to its log."""
        return (self.folder / "log").read_text()

    def get(self, path: str, **parameters: object) -> Any:
        """The data that its HTTP interface answers with."""
        answer = ask(self.port, f"/api/v1/{path}?{urlencode(parameters)}")
        assert answer.status == 200, answer
        return answer.json["data"]

    def query(self, expression: str) -> list[Sample]:
        """What an expression gives now."""
        result = self.get("query", query=expression)["result"]
        return [(each["metric"], float(each["value"][1])) for each in result]

    def series(self, expression: str, seconds: float, step: float) -> list[Any]:
        """What an expression has given in the last seconds, as JSON."""
        now = float(self.get("query", query="time()")["result"][1])
        given = self.get("query_range", query=expression, start=now - seconds, end=now, step=step)
        result: list[Any] = given["result"]
        return result

    def firing(self) -> dict[tuple[str, ...], dict[str, str]]:
        """The annotations of each alert that fires now.

        An alert is its name without the prefix, and what tells it from others of that name.
        """
        alerts = [each for each in self.get("alerts")["alerts"] if each["state"] == "firing"]
        return {named(each["labels"]): each["annotations"] for each in alerts}

    def _is_ready(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"Prometheus ended: {self.log_text()[-2000:]}")
        try:
            return ask(self.port, "/-/ready").status == 200
        except OSError:
            return False


def named(labels: Mapping[str, str]) -> tuple[str, ...]:
    """An alert by what tells it from others."""
    name = labels["alertname"].removeprefix("ContainerHealthcheck")
    return (name, *(labels[each] for each in _TELLING if each in labels))


def quicker(text: str, minute: float) -> str:
    """A configuration or rules in which every time span is as much shorter as a minute is."""
    seconds = {"s": 1, "m": 60, "h": 3600, "d": 86400}

    def shortened(found: re.Match[str]) -> str:
        span = int(found[2]) * seconds[found[3]] * minute / 60
        return f"{found[1]}{max(1, round(span * 1000))}ms"

    if minute == 60:
        return text
    # In ranges, offsets, and the fields that are time spans.
    places = r"(\[|offset |:(?=\d+m\])|(?:for|interval|_interval): )(\d+)([smhd])\b"
    return re.sub(places, shortened, text)


def without_rules(text: str) -> str:
    """A configuration that names no rules."""
    changed, count = re.subn(r"^rule_files:\n(  .*\n)+", "", text, flags=re.MULTILINE)
    assert count == 1
    return changed


def _with_targets(text: str, job: str, addresses: Sequence[str]) -> str:
    pattern = rf"(- job_name: {job}\n(?:    .*\n)*?      - targets:\n)(?:          - .*\n)+"
    lines = "".join(f"          - {json.dumps(each)}\n" for each in addresses)
    changed, count = re.subn(pattern, rf"\g<1>{lines}", text)
    assert count == 1, job
    return changed
