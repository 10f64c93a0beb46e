"""`make install` and `make uninstall` on hosts with systemd, with rpm's database and without."""

from __future__ import annotations

import os
import shutil
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from container_healthcheck import __version__
from sandbox.waiting import wait_for
from tests.packaging.conftest import build_rpm
from tests.packaging.hosts import SOURCE, SYSCONFIG, UNIT, Host, await_ready, use_engine

_SOURCES = (
    *("Makefile", "tools", "packaging", "requirements", "container_healthcheck", "setup.cfg"),
    *("pyproject.toml", "README.md", "LICENSE", "docs"),
)
HOME = f"/opt/{UNIT}"
ANSWER = """$ curl http://localhost:4246/container-healthcheck/health
{"code":0,"status":"ok","message":"i'm healthy"}"""
# What it installs from: a host here reaches no network.
_OFFLINE = "PIP_NO_INDEX=1 PIP_FIND_LINKS=/packages/wheels"
_INSTALL = f"cd /packages/source && {_OFFLINE} make -s install 2>&1"
_UNINSTALL = "cd /packages/source && make -s uninstall 2>&1"


@pytest.fixture(scope="module")
def checkout(packages: Path, package: Path) -> Path:
    """A checkout as hosts see it, at /packages/source, with the package built."""
    source = packages / "source"
    source.mkdir()
    for name in _SOURCES:
        here = SOURCE / name
        (shutil.copytree if here.is_dir() else shutil.copy)(here, source / name)
    (source / "dist").mkdir()
    shutil.copy(package, source / "dist" / package.name)
    return source


@pytest.fixture(scope="module")
def without_rpm(boot_host: Callable[..., Host], checkout: Path) -> Iterator[Host]:
    """A host whose packages are not rpm's, with the wheels that its Python needs."""
    host = boot_host()
    try:
        trusted = os.environ.get("PIP_CERT") or ssl.get_default_verify_paths().cafile
        if trusted:
            shutil.copy(trusted, checkout.parent / "trusted.crt")
        pip = "/var/online/bin/pip -q --disable-pip-version-check"
        host.run_online(
            f"""python3 -m venv /var/online
            # They would be files of this machine.
            unset REQUESTS_CA_BUNDLE CURL_CA_BUNDLE
            [ ! -e /packages/trusted.crt ] || export PIP_CERT=/packages/trusted.crt
            {pip} download -d /packages/wheels setuptools wheel
            cd /packages/source
            {pip} download -d /packages/wheels --require-hashes -r requirements/runtime.txt
            rm -rf /var/online"""
        )
        yield host
    finally:
        host.container.remove(force=True)


@pytest.fixture
def clean(without_rpm: Host) -> Iterator[Host]:
    """The same, with nothing installed; the port is free again afterwards."""
    yield without_rpm
    without_rpm.run(_UNINSTALL)
    without_rpm.run(f"rm -rf {SYSCONFIG}*")


def test_it_installs_and_serves(clean: Host) -> None:
    said = clean.run(_INSTALL)

    assert said.endswith(ANSWER)
    assert f"==> Making the virtual environment {HOME}" in said
    assert clean.run(f"systemctl is-enabled {UNIT}") == "enabled"
    assert clean.property("User") == UNIT
    assert clean.run(f"{UNIT} --version") == f"container-healthcheck {__version__}"
    use_engine(clean)
    await_ready(clean)
    assert "CODE" in clean.run(f"{UNIT} list", check=False)


def test_a_second_time_keeps_the_settings(clean: Host) -> None:
    clean.run(_INSTALL)
    clean.run(f"sed -i 's/-port 4246/-port 4300/' {SYSCONFIG}")
    clean.run(f"{UNIT} drain bk_iam --url http://127.0.0.1:4246/container-healthcheck", check=False)

    said = clean.run(_INSTALL)

    assert "==> Keeping the settings" in said
    assert said.endswith(ANSWER.replace("4246", "4300"))
    assert clean.run(f"ls -d {HOME} /var/lib/{UNIT}/*").count("\n") >= 1


def test_what_was_interrupted_is_done_again(clean: Host) -> None:
    clean.run(f"mkdir -p {HOME}/bin {HOME}/lib; ln -s /nowhere {HOME}/bin/python")

    assert clean.run(_INSTALL).endswith(ANSWER)


def test_it_is_removed(clean: Host) -> None:
    clean.run(_INSTALL)
    clean.run(f"echo '# mine' >>{SYSCONFIG}")

    said = clean.run(_UNINSTALL)

    assert f"==> Keeping your settings as {SYSCONFIG}.saved" in said
    found = clean.run(
        "find / -xdev -name '*container-healthcheck*' -not -path '/packages/*'"
        " -not -path '/proc/*' -not -path '/sys/*'"
    )
    assert found == f"{SYSCONFIG}.saved"
    assert clean.exit_code(f"getent passwd {UNIT}") != 0
    assert clean.ask("/health") is None
    assert clean.run(_UNINSTALL) == "container-healthcheck is not installed here."


def test_a_taken_port_is_named_before_anything_is_done(clean: Host) -> None:
    holder = (
        "import socket, time; s = socket.socket(); s.bind(('', 4246)); s.listen(); time.sleep(1e6)"
    )
    clean.run(f'systemd-run -q --unit=taken python3 -c "{holder}"')
    wait_for(lambda: clean.exit_code("curl -s -m 1 127.0.0.1:4246") != 7, "the port to be taken")
    try:
        said = clean.run(_INSTALL, check=False)
    finally:
        clean.run("systemctl stop taken")

    assert "make install: 127.0.0.1:4246 is taken by another program: stop it first" in said
    assert clean.exit_code(f"test -e {HOME}") == 1


def test_an_ordinary_user_is_told(without_rpm: Host) -> None:
    said = without_rpm.run(f"setpriv --reuid=65534 sh -c '{_INSTALL}'", check=False)

    assert "make install: run this as root" in said


def test_where_rpm_has_the_hosts_packages(host: Host, checkout: Path, tmp_path: Path) -> None:
    build_rpm(tmp_path, str(Path(__file__).parent / "rpm-host.spec"))
    (shell,) = tmp_path.glob("**/*.rpm")
    shutil.copy(shell, checkout.parent / "shell.rpm")
    host.run("rpm -U --justdb /packages/shell.rpm")

    for _ in range(2):
        said = host.run(_INSTALL)
        assert "==> Installing /packages/source/dist/container-healthcheck-" in said
        assert said.endswith(ANSWER)
    assert host.run(f"rpm -q {UNIT}").startswith(f"{UNIT}-{__version__}-1")

    assert "==> Removing the package" in host.run(_UNINSTALL)
    assert host.run(_UNINSTALL) == "container-healthcheck is not installed here."
    dist = checkout / "dist"
    dist.rename(checkout / "elsewhere")
    said = host.run(_INSTALL, check=False)
    (checkout / "elsewhere").rename(dist)
    assert "is missing: run make build on a Debian, and copy dist/ here" in said
