"""`pip install .`, as in the README, into a virtual environment of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from container_healthcheck import __version__
from sandbox.private_engine import PrivateEngine
from sandbox.running_service import SOURCE, RunningService

OURS = ("container_healthcheck", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")


@pytest.mark.slow
def test_an_installed_package_serves(engine: PrivateEngine, tmp_path: Path) -> None:
    copy, environment = tmp_path / "copy", tmp_path / "environment"
    copy.mkdir()
    for name in OURS:
        is_folder = (SOURCE / name).is_dir()
        (shutil.copytree if is_folder else shutil.copy)(SOURCE / name, copy / name)
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    pip = [str(environment / "bin" / "pip"), "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "."], cwd=copy, check=True)
    command = str(environment / "bin" / "container-healthcheck")

    said = subprocess.run([command, "--version"], check=True, capture_output=True, text=True)
    assert said.stdout == f"container-healthcheck {__version__}\n"
    service = RunningService(engine.url, command=[command], cwd=tmp_path)
    with service:
        assert service.code("nope") == 12
