"""A half-copied upgrade: files of two versions side by side are noticed, and users are not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.gateway import PACKAGING, WORKERS, Gateway
from tests.gateway.asking import lines_about
from tests.gateway.made_up import MadeUp, Verdicts

LUA = PACKAGING / "openresty" / "lua"
FILES = sorted(path.relative_to(LUA) for path in LUA.rglob("*.lua"))
HEADER = re.compile(r"-- container-healthcheck (\d+\.\d+\.\d+): ")
GOOD = "127.0.0.4"
UPSTREAM = f"upstream bk_iam {{ server {GOOD}:8010; }}"


@pytest.fixture
def good() -> Iterator[MadeUp]:
    """A server whose service says that bk_iam is up."""
    with MadeUp(GOOD, Verdicts({"bk_iam": 0})) as server:
        yield server


def test_all_files_are_of_one_version() -> None:
    """And say so in their first line."""
    said = {path: set(re.findall(r"\d+\.\d+\.\d+", (LUA / path).read_text())) for path in FILES}
    firsts = {path: HEADER.match((LUA / path).read_text()) for path in FILES}
    versions = {first.group(1) if first else path for path, first in firsts.items()}
    assert len(versions) == 1, versions
    # But for the module of nginx and OpenResty themselves, and the format of the metrics.
    others = {"0.10.15", "0.0.4"}
    assert {each for found in said.values() for each in found} - others == versions


def _age(path: Path) -> None:
    """Makes it a file of the version before."""
    text, count = re.subn(r"2\.1\.0", "2.0.9", path.read_text())
    assert count
    path.write_text(text)


# The files that nginx itself runs only call the others.
CASES = [
    (name, is_there) for name in FILES for is_there in (True, False) if "balancer" not in name.name
]


@pytest.mark.parametrize(
    ("name", "is_there"),
    CASES,
    ids=[f"{name} {'older' if there else 'missing'}" for name, there in CASES],
)
def test_a_file_that_does_not_fit(good: MadeUp, name: Path, is_there: bool) -> None:
    """One line in the log, and stock routing."""
    gateway = Gateway([good.name], include=UPSTREAM)
    if is_there:
        _age(gateway.lua / name)
    else:
        (gateway.lua / name).unlink()
    with gateway:
        for _ in range(10):
            assert gateway.get("/o/bk_iam/").body == GOOD.encode()
        lines = lines_about(gateway, "stock routing")
        # Without the entry itself, each worker says so.
        assert 1 <= len(lines) <= (1 if name.name != "container_healthcheck.lua" else WORKERS)
        assert name.stem in lines[0]
        if is_there:
            assert "2.0.9" in lines[0] and "2.1.0" in lines[0]
        assert gateway.get("/container-healthcheck-gateway").status == 500
        assert good.lists == 0
