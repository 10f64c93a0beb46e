"""The READMEs tell the truth: every example is run, and every table is compared."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from container_healthcheck.model.verdict import Code
from container_healthcheck.settings import documented_settings, shown
from sandbox.private_engine import PrivateEngine
from sandbox.running_service import SOURCE, RunningService
from sandbox.waiting import wait_for
from tests.conftest import require_engine
from tests.readme import READMES, examples, steady

PORT = "4246"


@pytest.fixture(scope="module")
def service() -> Iterator[RunningService]:
    """A service on a host as the examples show it."""
    require_engine()
    with PrivateEngine() as engine:
        engine.run("bk_iam-1709878117")
        engine.run("bk_monitorv3-1709878117", command="sh -c 'exit 1'")
        with RunningService(engine.url) as service:
            wait_for(lambda: b"exited" in service.check("bk_monitorv3").body, "the dead app")
            wait_for(lambda: service.code("bk_iam") == 0, "the live app")
            yield service


@pytest.mark.parametrize("readme", READMES)
def test_every_example_gives_what_is_printed(
    readme: str, service: RunningService, tmp_path: Path
) -> None:
    command_file = tmp_path / "container-healthcheck"
    command_file.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m container_healthcheck "$@"\n')
    command_file.chmod(0o755)
    environment = {**service.environment, "PATH": f"{tmp_path}:{service.environment['PATH']}"}
    assert len(examples(readme)) >= 9

    for command, printed in examples(readme):
        done = subprocess.run(
            command.replace(f":{PORT}", f":{service.port}").replace("curl ", "curl -s ", 1),
            shell=True,
            env=environment,
            cwd=SOURCE,
            capture_output=True,
            text=True,
            check=False,
        )
        output = done.stdout if done.stdout.endswith("\n") else done.stdout + "\n"
        output = output.replace("\r\n", "\n").replace(f":{service.port}", f":{PORT}")
        if printed.endswith("…\n"):
            assert output.startswith(printed.removesuffix("…\n")), command
        else:
            assert steady(output) == steady(printed), f"{command}\n{done.stderr}"


def test_both_languages_show_the_same_examples() -> None:
    assert examples("README.md") == examples("README.zh-CN.md")


def test_both_languages_have_the_same_chapters() -> None:
    english, chinese = ((SOURCE / readme).read_text() for readme in READMES)

    levels = [re.findall(r"^#+ ", text, re.MULTILINE) for text in (english, chinese)]
    assert levels[0] == levels[1]
    assert english.count("\n|") == chinese.count("\n|")


def table(readme: str, first: str) -> list[list[str]]:
    """The cells of the table rows that begin with a cell like `first`."""
    text = (SOURCE / readme).read_text()
    rows = re.findall(rf"^\| ({first}) \|(.*)\|$", text, re.MULTILINE)
    split = re.compile(r"(?<!\\)\|")
    return [[row[0], *(cell.strip() for cell in split.split(row[1]))] for row in rows]


@pytest.mark.parametrize("readme", READMES)
def test_the_settings_are_those_of_the_code(readme: str) -> None:
    empty = {"README.md": "empty", "README.zh-CN.md": "空"}[readme]
    printed = {
        row[0].strip("`"): row[1].strip("`").replace(r"\|", "|")
        for row in table(readme, "`[A-Z_]+`")
    }

    assert printed == {
        setting.name.upper(): shown(setting.metadata["default"]).replace("empty", empty)
        for setting in documented_settings()
    }


@pytest.mark.parametrize("readme", READMES)
def test_the_codes_are_those_of_the_code(readme: str) -> None:
    assert [int(row[0]) for row in table(readme, r"\d+")] == [int(code) for code in Code]
