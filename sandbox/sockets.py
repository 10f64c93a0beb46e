"""Which process has the other end of a connection on this machine; Linux tells it in /proc."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path


def serving_process(client: socket.socket, processes: Sequence[int]) -> int:
    """The one of `processes` that has accepted this TCP connection, which is still open.

    Returns 0 when none of them has, and when it has ended meanwhile.
    """
    mine, theirs = (f":{name[1]:04X}" for name in (client.getsockname(), client.getpeername()))
    return next((each for each in processes if _has_accepted(each, theirs, mine)), 0)


def relay_of(processes: Sequence[int]) -> tuple[int, str]:
    """The one of `processes` that leads, and the abstract name that it listens on.

    Of several names the one with the latest term, at its end; 0 and nothing when none is there.
    """
    found = []
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "00010000" and fields[-1].startswith("@container-healthcheck-"):
            name = fields[-1].removeprefix("@")
            found.append((int(name.rpartition("-")[2]), name, f"socket:[{fields[6]}]"))
    for _, name, target in sorted(found, reverse=True):
        for process in processes:
            if _has_open(process, target):
                return process, name
    return 0, ""


def _has_open(process: int, target: str) -> bool:
    try:
        return any(str(each.readlink()) == target for each in Path(f"/proc/{process}/fd").iterdir())
    except OSError:
        return False


def _has_accepted(process: int, local: str, remote: str) -> bool:
    try:
        return _has_open(process, f"socket:[{_inode(process, local, remote)}]")
    except OSError:
        return False


def _inode(process: int, local: str, remote: str) -> str:
    for family in ("tcp", "tcp6"):
        for line in Path(f"/proc/{process}/net/{family}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[1].endswith(local) and fields[2].endswith(remote):
                return fields[9]
    return ""
