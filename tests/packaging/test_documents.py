"""What the package brings to read: chapters, the manual page, and the completion of the shell."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

import pytest

from container_healthcheck import __version__
from tests.packaging.hosts import SOURCE, run


@pytest.fixture(scope="module")
def share(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the package puts into /usr/share."""
    folder = tmp_path_factory.mktemp("share")
    run(["sh", "-c", f"cd {folder} && rpm2cpio {package} | cpio -idm './usr/share/*'"])
    return folder / "usr" / "share"


def test_the_chapters_are_there(share: Path) -> None:
    documents = share / "doc" / "container-healthcheck"
    for path in ("README.md", "README.zh-CN.md", "docs"):
        there = [documents / path, *(documents / path).rglob("*")]
        here = [SOURCE / path, *(SOURCE / path).rglob("*")]
        assert {each.relative_to(documents) for each in there} == {
            each.relative_to(SOURCE) for each in here
        }


def test_the_manual_page_is_the_one_of_this_version(share: Path) -> None:
    made = run([sys.executable, str(SOURCE / "packaging" / "man_page.py"), __version__])
    packed = (share / "man" / "man8" / "container-healthcheck.8.gz").read_bytes()

    assert gzip.decompress(packed).decode().rstrip() == made.rstrip()


def test_the_completion_is_that_of_the_command_line(share: Path) -> None:
    made = subprocess.run(
        [sys.executable, "-m", "container_healthcheck", "completion", "bash"],
        cwd=SOURCE,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    folder = share / "bash-completion" / "completions"

    assert (folder / "container-healthcheck").read_text() == made
    run(
        [
            "bash",
            "-euc",
            f"source {folder}/container-healthcheck; complete -p container-healthcheck",
        ]
    )
