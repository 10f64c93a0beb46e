"""Where there is no rpm: pip, a virtual environment and the unit, as the README says."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from sandbox.private_engine import PrivateEngine
from sandbox.running_service import RunningService
from sandbox.waiting import wait_for
from tests.packaging.hosts import SOURCE, run

_SOURCES = ("container_healthcheck", "setup.cfg", "pyproject.toml", "LICENSE", "requirements")


def test_pip_install_gives_a_service(tmp_path: Path, engine: PrivateEngine) -> None:
    # A copy: building leaves folders in the source.
    source = tmp_path / "source"
    source.mkdir()
    for name in _SOURCES:
        here = SOURCE / name
        copy = shutil.copytree if here.is_dir() else shutil.copy
        copy(here, source / name)
    (source / "README.md").write_text("# container-healthcheck\n")
    home = tmp_path / "home"
    run([sys.executable, "-m", "venv", str(home)])
    pip = [str(home / "bin/pip"), "install", "-q"]
    run([*pip, "--require-hashes", "-r", "requirements/runtime.txt"], cwd=source)
    run([*pip, "--no-deps", "."], cwd=source)
    wrapper = (SOURCE / "packaging/rpm/container-healthcheck").read_text()
    settings = tmp_path / "sysconfig"
    program = tmp_path / "container-healthcheck"
    program.write_text(
        wrapper.replace("/opt/container-healthcheck", str(home)).replace(
            "/etc/sysconfig/container-healthcheck", str(settings)
        )
    )
    program.chmod(0o755)

    with RunningService(engine.url, command=[str(program)]) as service:
        settings.write_text(f"OPTS='-port {service.port}'\n")
        wait_for(lambda: service.get("/ready").code == 0, "the service to be ready")
        listed = subprocess.run(
            [program, "list", "--json"], capture_output=True, check=False, cwd=tmp_path
        )
        assert json.loads(listed.stdout)["code"] == 0
