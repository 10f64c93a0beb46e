"""The manual page, as it is made from the chapters."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from types import ModuleType

import pytest

from container_healthcheck.settings import documented_settings
from sandbox.running_service import SOURCE
from tests.conftest import give_up

SCRIPT = SOURCE / "packaging" / "man_page.py"


@pytest.fixture(scope="module")
def man_page() -> ModuleType:
    spec = importlib.util.spec_from_file_location("man_page", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def page() -> str:
    command = [sys.executable, str(SCRIPT), "1.2.3"]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd="/").stdout


@pytest.fixture(scope="module")
def shown(page: str) -> str:
    """What a terminal shows of it, without warnings and on one line."""
    if shutil.which("groff") is None:
        give_up("not installed: groff: see TESTED in the Makefile")
    done = subprocess.run(
        ["groff", "-man", "-Tascii", "-ww", "-P-c"],
        input=page,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return " ".join(re.sub(r".\x08", "", done.stdout).split())


def test_it_can_be_read_everywhere(page: str) -> None:
    assert page.isascii()


def test_it_has_what_a_manual_page_has(page: str, shown: str) -> None:
    sections = re.findall(r'^\.SH "?(.*?)"?$', page, re.MULTILINE)
    assert sections[:2] == ["NAME", "DESCRIPTION"]
    assert sections[-3:] == ["ENVIRONMENT", "FILES", "SEE ALSO"]
    assert "container-healthcheck 1.2.3" in shown
    for setting in documented_settings():
        assert f" {setting.name.upper()} default: " in shown
    # Whole examples and table cells, with what roff would make something else of.
    assert "$ container-healthcheck drain bk_iam --reason 'disk change' --for 30m" in shown
    assert r"{app_code}(-\d+|\d{10})?" in shown
    assert " /etc/sysconfig/container-healthcheck the settings, each explained" in shown


def test_nothing_of_markdown_is_left(page: str) -> None:
    assert not re.search(r"^```|^#|^\||^- |\]\(", page, re.MULTILINE)


@pytest.mark.parametrize(
    ("markdown", "roff"),
    [
        ("a `b-c` d", r".PP" + "\n" + r"a \fBb\-c\fR d"),
        ("`.a` b", ".PP\n\\fB.a\\fR b"),
        (".a", ".PP\n\\&.a"),
        ("'a\\b", ".PP\n\\(aqa\\eb"),
        ("中…", ".PP\n\\[u4E2D]\\[u2026]"),
        ("see [the `b`](c.md) and [d](https://e)", ".PP\nsee the \\fBb\\fR and d <https://e>"),
        ("- a\n  b\n- c", ".IP \\(bu 2\na b\n.IP \\(bu 2\nc"),
        ("```\n.a\n\n# b\n```", ".PP\n.nf\n\\&.a\n\n# b\n.fi"),
        ("| k | v |\n|---|---|\n| `a` | b \\| c |", ".TP\n\\fBa\\fR\nb | c"),
    ],
)
def test_markdown_becomes_roff(man_page: ModuleType, markdown: str, roff: str) -> None:
    assert man_page.body(markdown) == roff


@pytest.mark.parametrize("markdown", ["1. one", "> quoted", "# title"])
def test_what_it_does_not_know_stops_it(man_page: ModuleType, markdown: str) -> None:
    with pytest.raises(ValueError, match="not known to this script"):
        man_page.body(markdown)
