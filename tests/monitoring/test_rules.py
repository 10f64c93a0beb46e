"""The files for Prometheus load in Debian 12's and 13's, and alert as they should."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from sandbox.prometheus import RECIPES, RULES, without_rules
from tests.monitoring.conftest import unpacked
from tests.readme import LANGUAGES, blocks, chapter

SCENARIOS = Path(__file__).parent / "rules"
ALERTS = (RECIPES / RULES[1]).read_text()
BY_NAME = dict(re.findall(r"- alert: ContainerHealthcheck(\w+)\n((?: {8}.*\n|\n)+)", ALERTS))


def promtool(release: str, *arguments: str | Path) -> None:
    command = [*unpacked(release).promtool, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_configuration_and_the_rules_load(release: str) -> None:
    promtool(release, "check", "config", RECIPES / "prometheus.yml")


def test_the_configuration_with_consul_loads(tmp_path: Path) -> None:
    """In Debian 11's Prometheus: Debian's later ones are built without Consul's part."""
    # It is too old for the alerts; they are in the other configuration too.
    alone = without_rules((RECIPES / "prometheus-consul.yml").read_text())
    (tmp_path / "prometheus.yml").write_text(alone)
    promtool("bullseye", "check", "config", tmp_path / "prometheus.yml")


@pytest.mark.parametrize("scenarios", sorted(SCENARIOS.iterdir()), ids=lambda path: path.name)
def test_the_alerts_fire_and_end_as_they_should(release: str, scenarios: Path) -> None:
    promtool(release, "test", "rules", scenarios)


def test_every_alert_has_a_scenario_in_which_it_fires() -> None:
    expected = "".join(path.read_text() for path in SCENARIOS.iterdir())
    fired = set(re.findall(r'ALERTS{alertname="ContainerHealthcheck(\w+)"', expected))

    assert fired == {*BY_NAME}
    assert len(fired) == 11


@pytest.mark.parametrize("name", BY_NAME)
def test_every_alert_says_in_both_languages_what_to_do(name: str) -> None:
    _, labels = BY_NAME[name].split(" labels:\n")
    fields = re.findall(r"^ {10}(\w+): *\S", labels, re.MULTILINE)

    assert fields == ["severity", "summary", "description", "summary_zh", "description_zh"]
    assert re.search(r"severity: (critical|warning|info)\n", BY_NAME[name])
    english, chinese = re.split("summary_zh:", BY_NAME[name])
    assert re.search("[一-鿿]", chinese) and not re.search("[一-鿿]", english)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_chapter_has_every_alert_as_it_is(language: str) -> None:
    text = chapter(language, "alerts.md").read_text()
    rows = re.findall(r"^\| `ContainerHealthcheck(\w+)` \| (\w+) \| (\w+) \|", text, re.MULTILINE)

    assert rows == [
        (name, field(rule, "severity"), field(rule, "for") or "1d")
        for name, rule in BY_NAME.items()
    ]


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_thresholds_named_are_those_of_the_rules(language: str) -> None:
    text = chapter(language, "alerts.md").read_text()
    for name, threshold in (("AppFlaps", "> 8"), ("PictureStale", "> 60")):
        assert re.search(f"^- .*`{threshold}`", text, re.MULTILINE)
        assert BY_NAME[name].count(f"{threshold}\n") == 1
    assert BY_NAME["AppDrainedForADay"].count("1d") == 2


def field(rule: str, name: str) -> str:
    found = re.search(rf"^ +{name}: (\S+)$", rule, re.MULTILINE)
    return found[1] if found else ""


def test_the_chapters_commands_give_what_is_printed(release: str, tmp_path: Path) -> None:
    program = tmp_path / "promtool"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(unpacked(release).promtool)} "$@"\n')
    program.chmod(0o755)
    target = tmp_path / "etc"
    target.mkdir()
    ((copy, check),) = blocks(chapter("en", "alerts.md"), "console")
    for command, printed in (copy, check):
        done = subprocess.run(
            command.replace("/etc/prometheus", str(target)),
            shell=True,
            cwd=RECIPES.parent,
            env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
        )
        output = done.stdout.replace(str(target), "/etc/prometheus")
        assert (done.returncode, output.strip()) == (0, printed.strip()), done


def test_both_configurations_have_the_same_jobs() -> None:
    jobs = [
        re.findall(r"job_name: .*|metrics_path: .*|params:|format: .*", path.read_text())
        for path in (RECIPES / "prometheus.yml", RECIPES / "prometheus-consul.yml")
    ]
    assert jobs[0] == jobs[1]
