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


@pytest.fixture(scope="module")
def said(without_rpm: Host) -> str:
    """What the first installation says, on a host where another was interrupted."""
    without_rpm.run(f"mkdir -p {HOME}/bin; ln -s /nowhere {HOME}/bin/python")
    return without_rpm.run(_INSTALL)


def test_an_ordinary_user_is_told(without_rpm: Host) -> None:
    user = "setpriv --reuid=65534"
    for target in ("install", "uninstall"):
        command = _INSTALL.replace("make -s install", f"{user} make -s {target}")
        assert f"make {target}: run this as root" in without_rpm.run(command, check=False)


def test_a_taken_port_is_named_before_anything_is_done(without_rpm: Host) -> None:
    host = without_rpm
    host.run("systemd-run -q --unit=taken python3 -m http.server 4246")
    wait_for(lambda: host.exit_code("curl -s -m 1 127.0.0.1:4246") != 7, "the port to be taken")
    try:
        told = host.run(_INSTALL, check=False)
    finally:
        host.run("systemctl stop taken")

    assert "make install: 127.0.0.1:4246 is taken by another program: stop it first" in told
    assert host.exit_code(f"test -e {HOME}") == 1


def test_it_installs_and_serves(said: str, without_rpm: Host) -> None:
    host = without_rpm

    assert said.endswith(ANSWER)
    assert f"==> Making the virtual environment {HOME}" in said
    assert host.run(f"systemctl is-enabled {UNIT}") == "enabled"
    assert host.property("User") == UNIT
    assert host.run(f"{UNIT} --version") == f"container-healthcheck {__version__}"
    use_engine(host)
    await_ready(host)
    assert "CODE" in host.run(f"{UNIT} list", check=False)


def test_a_second_time_keeps_the_settings_and_the_marks(said: str, without_rpm: Host) -> None:
    host = without_rpm
    host.run(f"{UNIT} drain bk_iam")
    host.run(f"sed -i 's/-port 4246/-port 4300/' {SYSCONFIG}")
    settings = host.run(f"cat {SYSCONFIG}")

    again = host.run(_INSTALL)

    assert "==> Keeping the settings" in again
    assert "==> Making the virtual environment" not in again
    assert again.endswith(ANSWER.replace("4246", "4300"))
    assert host.run(f"cat {SYSCONFIG}") == settings
    assert host.ask("/apps/health/bk_iam", 4300)["code"] == 15


def test_an_address_of_ones_own_is_asked(said: str, without_rpm: Host) -> None:
    host = without_rpm
    host.run(
        f"cp {SYSCONFIG} /tmp/before; echo CONTAINER_HEALTHCHECK_BIND=127.0.0.5:4300 >>{SYSCONFIG}"
    )
    host.run(f"sed -i 's/-port [0-9]*//' {SYSCONFIG}")
    try:
        again = host.run(_INSTALL)
    finally:
        host.run(f"cp /tmp/before {SYSCONFIG}; systemctl restart {UNIT}")

    assert "$ container-healthcheck changes" in again
    assert "127.0.0.5" not in again.partition("$ container-healthcheck changes")[2]


def test_it_is_removed(said: str, without_rpm: Host) -> None:
    host = without_rpm
    host.run(f"echo '# changed' >>{SYSCONFIG}")

    assert f"==> Keeping your settings as {SYSCONFIG}.saved" in host.run(_UNINSTALL)

    found = host.run(
        "find / -xdev -name '*container-healthcheck*' -not -path '/packages/*'"
        " -not -path '/proc/*' -not -path '/sys/*'"
    )
    assert found == f"{SYSCONFIG}.saved"
    assert host.exit_code(f"getent passwd {UNIT}") != 0
    assert host.ask("/health", 4300) is None
    assert host.run(_UNINSTALL) == "container-healthcheck is not installed here."


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
