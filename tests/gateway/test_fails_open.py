"""Whatever is wrong with the Lua, users get what the stock configuration gives them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox.gateway import GATEWAY_PORT, STOCK_PORT, Gateway
from sandbox.running_service import ask
from sandbox.waiting import wait_until
from tests.gateway.asking import APP, ask_often, lines_about
from tests.gateway.made_up import MadeUp

pytestmark = pytest.mark.usefixtures("way")
CORE = "container_healthcheck.lua"


def _upstream(servers: list[MadeUp], way: str) -> str:
    """What the location needs for stock routing, and the other way has."""
    peers = "".join(f"server {each.name} max_fails=1 fail_timeout=30s; " for each in servers)
    return f"upstream {APP} {{ {peers} }}" if way == "location" else ""


def _nothing(lua: Path) -> None:
    """Removes our files: with some builds, libraries that nginx itself needs lie beside them."""
    shutil.rmtree(lua / "container_healthcheck")
    for name in (CORE, "apps_balancer.lua", "appo_balancer.lua"):
        (lua / name).unlink()


def _half(lua: Path) -> None:
    for name in ("choice", "log", "metrics"):
        (lua / "container_healthcheck" / f"{name}.lua").unlink()


def _written(name: str, text: str) -> Callable[[Path], None]:
    def damage(lua: Path) -> None:
        (lua / name).write_text(text)

    return damage


def _cut(lua: Path) -> None:
    text = (lua / CORE).read_text()
    (lua / CORE).write_text(text[: len(text) // 2])


DAMAGES: dict[str, Callable[[Path], None]] = {
    "no files": _nothing,
    "half of them": _half,
    "garbage": _written(CORE, "\x7fELF\0\1"),
    "half a file": _cut,
    "an empty file": _written(CORE, ""),
    "a file that returns nothing": _written(CORE, "return true"),
    "an empty part": _written("container_healthcheck/choice.lua", ""),
    "a part with an error": _written("container_healthcheck/watch.lua", "error('no')"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_files(three: list[MadeUp], way: str, damage: Callable[[Path], None]) -> None:
    servers = three[:2]
    gateway = Gateway([each.name for each in servers], include=_upstream(servers, way))
    damage(gateway.lua)
    with gateway:
        _is_stock(gateway, servers)
        gateway.reload()
        _is_stock(gateway, servers)


def _is_stock(gateway: Gateway, servers: list[MadeUp]) -> None:
    """Users notice nothing, the log says what is wrong, and no server is asked for verdicts."""
    assert set(ask_often(gateway, 20)) == {each.address for each in servers}
    assert set(ask_often(gateway, 20, "POST")) == {each.address for each in servers}
    for path in ("/o/no_such_app/", "/o/a%20b/", f"/o/{APP}x/"):
        assert ask(GATEWAY_PORT, path).status == 502
    for status in (404, 500, 503):
        for each in servers:
            each.status = status
        assert set(ask_often(gateway, 4)) == {str(status)}
    for each in servers:
        each.status = 200
    assert any("falling back to stock routing" in line for line in gateway.changes())
    assert sum(each.lists for each in servers) == 0


def test_files_that_workers_may_not_read(three: list[MadeUp], way: str) -> None:
    """Workers are not root, the files were copied under umask 077, and `nginx -t` is content."""
    servers = three[:2]
    names, include = [each.name for each in servers], _upstream(servers, way)
    gateway = Gateway(names, include=include, user="nobody nogroup")
    gateway.lua.chmod(0o700)
    with gateway:
        gateway.nginx.check()
        _is_stock(gateway, servers)


def _without(line: str) -> Callable[[str], str]:
    return lambda text: text.replace(line, "")


def test_without_the_dictionary(three: list[MadeUp], way: str) -> None:
    servers = three[:2]
    names, include = [each.name for each in servers], _upstream(servers, way)
    edit = _without("lua_shared_dict container_healthcheck 4m;")
    with Gateway(names, include=include, edit=edit) as gateway:
        _is_stock(gateway, servers)
        assert gateway.get("/container-healthcheck-gateway").json["shared_dictionary"] is False


@pytest.mark.parametrize("function", ["rank", "share_out"])
def test_an_error_in_the_lua_itself(three: list[MadeUp], way: str, function: str) -> None:
    """Requests go on; one line for all of them names the error."""
    servers = three[:2]

    def fails(text: str) -> str:
        head = f"local function {function}("
        if head not in text:
            return text
        before, _, after = text.partition(head)
        arguments, _, rest = after.partition(")")
        return f"{before}{head}{arguments})\n    if true then error('it is broken') end{rest}"

    names, include = [each.name for each in servers], _upstream(servers, way)
    with Gateway(names, include=include, edit_lua=fails) as gateway:
        assert set(ask_often(gateway, 20)) == {each.address for each in servers}
        about = lines_about(gateway, "it is broken")
        assert len(about) == 1 and "internal error" in about[0]


def test_stock_failures_stay_stock_failures(
    three: list[MadeUp], way: str, request: pytest.FixtureRequest
) -> None:
    """One of two servers is gone, and the Lua as well: as with the stock location, no GET fails."""
    servers = three[:2]
    gateway = Gateway([each.name for each in servers], include=_upstream(servers, way))
    _nothing(gateway.lua)
    with gateway:
        servers[0].status = 502
        assert set(ask_often(gateway, 20)) == {servers[1].address}
        stock = {ask(STOCK_PORT, f"/o/{APP}/").body.decode() for _ in range(20)}
        assert stock == {servers[1].address}
        servers[1].status = 502
        # When no server is left to try, lua-nginx-module 0.10.28 itself answers 500.
        is_newest = request.config.getoption("nginx_of") == "trixie" and way == "upstream"
        failure = {"500" if is_newest else "502"}
        wait_until(lambda: set(ask_often(gateway, 4)), failure.__eq__, "the stock failure")
