"""What the package brings to read, and whether it goes as the chapters on it say."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

import pytest

from container_healthcheck import __version__
from sandbox.waiting import wait_for
from tests.packaging.hosts import SOURCE, SYSCONFIG, UNIT, Host, install, run
from tests.readme import blocks, chapter, links


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


def test_the_recipes_are_there(share: Path) -> None:
    for part in ("openresty", "nginx", "haproxy", "consul", "prometheus", "grafana"):
        here = {path.name for path in (SOURCE / "packaging" / part).rglob("*") if path.is_file()}
        there = (share / "container-healthcheck" / part).rglob("*")
        assert here and here == {path.name for path in there if path.is_file()}


def test_no_link_is_dead_there(share: Path) -> None:
    for document in (share / "doc").rglob("*.md"):
        for link in links(document.read_text()):
            path = link.partition("#")[0]
            assert link.startswith("https://") or (document.parent / path).exists(), link


def test_the_manual_page_is_the_one_of_this_version(share: Path) -> None:
    made = run([sys.executable, str(SOURCE / "packaging" / "man_page.py"), __version__])
    packed = (share / "man" / "man8" / "container-healthcheck.8.gz").read_bytes()

    assert gzip.decompress(packed).decode().rstrip() == made.rstrip()


@pytest.mark.parametrize(
    ("shell", "file", "see"),
    [
        (
            "bash",
            "bash-completion/completions/container-healthcheck",
            "source $0; complete -p container-healthcheck",
        ),
        (
            "zsh",
            "zsh/site-functions/_container-healthcheck",
            "fpath=(${0:h} $fpath); autoload -Uz compinit; compinit -u -D;"
            " [[ $_comps[container-healthcheck] = _container-healthcheck ]]",
        ),
    ],
)
def test_the_completion_is_that_of_the_command_line(
    share: Path, shell: str, file: str, see: str
) -> None:
    made = subprocess.run(
        [sys.executable, "-m", "container_healthcheck", "completion", shell],
        cwd=SOURCE,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert (share / file).read_text() == made
    run([shell, "-euc", see, str(share / file)])


# --- the life of a package


def follow(host: Host, name: str, about: str) -> None:
    """Runs the block of a chapter that has a certain command, as printed."""
    shown = blocks(chapter("en", name), "console")
    for command, printed in next(each for each in shown if about in str(each)):
        assert host.run(f"cd /srv && {command} 2>&1").splitlines() == printed.splitlines(), command


def test_the_chapters_on_installing_and_upgrading(host: Host) -> None:
    # Debian's rpm has no record of /bin/sh, and warns that packages are not for Debian.
    wrapper = '#!/bin/sh\\nexec /usr/bin/rpm "$@" --nodeps --force-debian\\n'
    host.run(f"printf '{wrapper}' >/usr/local/bin/rpm; chmod 755 /usr/local/bin/rpm")
    names = {"service": f"{__version__}-1", "go": "1.0.2-2.el7"}
    for package, version in names.items():
        host.run(f"ln -s /packages/{package}.rpm /srv/{UNIT}-{version}.x86_64.rpm")

    follow(host, "install.md", "systemctl is-active")
    host.run(f"echo >>{SYSCONFIG}")
    follow(host, "install.md", "rpm -e")
    assert host.exit_code(f"test -e {SYSCONFIG}") == 1

    install(host, "go")
    host.run(f"echo >>{SYSCONFIG}; systemctl start {UNIT}")
    wait_for(lambda: host.ask("/") == "go", "the Go tool to answer")
    mine = host.run(f"cat {SYSCONFIG}")
    follow(host, "upgrade.md", f"cp {SYSCONFIG}")
    follow(host, "upgrade.md", "--oldpackage")
    wait_for(lambda: host.ask("/") == "go", "the Go tool to answer again")
    assert host.run(f"cat {SYSCONFIG}") == mine
    install(host)
    assert host.ask("/health")["code"] == 0
