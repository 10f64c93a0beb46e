"""Asking a gateway for an app, and giving it the servers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

from sandbox.gateway import Gateway
from sandbox.waiting import wait_for, wait_until
from tests.gateway.made_up import MadeUp

APP = "bk_iam"


def ask_often(gateway: Gateway, times: int = 40, method: str = "GET") -> Counter[str]:
    """How many answers came from each address; failures count as their status."""
    answers = [gateway.get(f"/o/{APP}/", method=method) for _ in range(times)]
    return Counter(
        answer.body.decode() if answer.status == 200 else str(answer.status) for answer in answers
    )


def await_up(gateway: Gateway, *servers: MadeUp) -> None:
    """Waits until the gateway knows that the app is up on them."""

    def is_up(server: MadeUp) -> bool:
        # Asked each time: just after a reload an old worker may still answer.
        gateway.get(f"/o/{APP}/")
        return gateway.state(server.name, APP) == "up"

    for server in servers:
        wait_for(lambda: is_up(server), f"{server.name} to be up")  # noqa: B023


def stand_in(upstreams: Mapping[str, str]) -> str:
    """Stands in for ngx.upstream, which OpenResty bundles and Debian has not, with its shapes.

    `upstreams` are the servers of each as Lua tables.
    """
    known = "".join(f'["{name}"] = {{ {servers} }},' for name, servers in upstreams.items())
    names = ",".join(f'"{name}"' for name in upstreams)
    return f"""
    init_by_lua_block {{
        local known = {{ {known} }}
        package.loaded["ngx.upstream"] = {{
            get_upstreams = function() return {{ {names} }} end,
            get_servers = function(name)
                if not known[name] then
                    return nil, "upstream not found"
                end
                return known[name]
            end,
        }}
    }}"""


def from_upstream(text: str) -> str:
    """A configuration without `$appo_servers`."""
    return re.sub(r"set \$appo_servers .*", "", text)


def lines_about(gateway: Gateway, text: str, least: int = 1) -> list[str]:
    """The lines of the log with this text, once there are so many.

    A worker that says something for all of them may do so after another one has answered.
    """
    return wait_until(
        lambda: [line for line in gateway.changes() if text in line],
        lambda lines: len(lines) >= least,
        f"{least} lines about {text!r}",
    )
