"""What `make` says where something is missing, and that an interrupted one can be begun again."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.packaging.hosts import SOURCE


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """As much of the project as making the virtual environment needs."""
    for name in ("Makefile", "tools", "requirements"):
        here = SOURCE / name
        (shutil.copytree if here.is_dir() else shutil.copy)(here, tmp_path / name)
    return tmp_path


def make(checkout: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", "-s", *arguments],
        cwd=checkout,
        env={**own, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_an_environment_that_was_left_half_made_is_made_again(checkout: Path) -> None:
    (checkout / ".venv/bin").mkdir(parents=True)
    (checkout / ".venv/bin/python").symlink_to("/usr/bin/python3")

    # There is no network either, which is where it ends.
    done = make(checkout, ".venv/runtime", PIP_NO_INDEX="1", PIP_CONFIG_FILE=os.devnull)

    assert done.returncode != 0
    assert "No module named pip" not in done.stdout
    assert "The packages could not be had: is there a network, and space?" in done.stdout
    assert not (checkout / ".venv/runtime").exists()
    pip = [str(checkout / ".venv/bin/python"), "-m", "pip", "--version"]
    assert subprocess.run(pip, capture_output=True).returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_said(checkout: Path) -> None:
    full = checkout / "full"
    full.mkdir()
    make_there = "cp -r Makefile tools requirements full && cd full && make -s .venv/runtime"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", f"mount -t tmpfs -o size=4m none full; {make_there}"],
        cwd=checkout,
        env={name: value for name, value in os.environ.items() if not name.startswith("MAKE")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )

    assert done.returncode != 0
    assert "The packages could not be had: is there a network, and space?" in done.stdout
    assert "Traceback" not in done.stdout


def need(folder: Path, **programs: str) -> subprocess.CompletedProcess[str]:
    """Asks for a program that no machine has, where the given ones answer otherwise."""
    for name, script in programs.items():
        program = folder / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    return subprocess.run(
        [str(SOURCE / "tools/need"), "no-such-program=no-such-package", "sh=dash"],
        env={"PATH": f"{folder}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )


def test_an_ordinary_user_is_told_what_is_missing(tmp_path: Path) -> None:
    done = need(tmp_path, id="echo 1000")

    assert done.returncode == 1
    assert done.stderr.startswith("Missing here: no-such-package (names of Debian packages).")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("package", ["debootstrap", "chromium", "golang-go", "haproxy", "rpm"])
def test_make_test_does_without_what_is_big(package: str) -> None:
    def wanted(target: str) -> list[str]:
        done = make(SOURCE, "-n", target)
        assert done.returncode == 0, done.stdout
        return [pair.partition("=")[2] for pair in done.stdout.split() if "=" in pair]

    assert package not in wanted("test")
    assert package in wanted("test-slow")
