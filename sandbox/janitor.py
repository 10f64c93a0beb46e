"""Runs a program in namespaces of its own, and leaves nothing of it, whatever ends the caller.

`python -m sandbox.janitor COMMAND …` with a pipe as its input: when the other end is closed, by the
caller's death too, or when the command ends, it kills all that the command started, and removes
its temporary files and cgroups. Signals do not end it, and the caller starts it in a session of its
own, so that no Ctrl-C meant for the caller does either.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from sandbox.private_engine import remove_cgroups
from sandbox.waiting import wait_for

# containerd keeps sockets in /run, whatever folders it is given.
_PREPARE = 'mount -t tmpfs tmpfs /run && ip link set lo up && exec "$@"'


def main(command: Sequence[str]) -> int:
    """Returns the command's exit code."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Not SIG_IGN, which the command would inherit.
        signal.signal(number, lambda *_: None)
    try:
        folder = Path(tempfile.mkdtemp(prefix="chc-world-"))
    except OSError as error:
        print(f"No folder for what is temporary: {error}", file=sys.stderr)
        return 1
    try:
        return _run(command, folder)
    finally:
        # Each engine's cgroup has the name of its folder.
        for each in folder.iterdir():
            remove_cgroups(each.name)
        shutil.rmtree(folder, ignore_errors=True)


def _run(command: Sequence[str], folder: Path) -> int:
    unshare = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    world = subprocess.Popen(
        [*unshare, "sh", "-c", _PREPARE, "sh", *command],
        env={**os.environ, "TMPDIR": str(folder)},
        stdin=subprocess.DEVNULL,
        close_fds=False,
    )
    try:
        select.select([sys.stdin, os.pidfd_open(world.pid)], [], [])
    finally:
        _end(world)
    return world.returncode


def _end(world: subprocess.Popen[bytes]) -> None:
    """Kills the first process of the namespace, and waits: it ends after all others in there."""
    children = Path(f"/proc/{world.pid}/task/{world.pid}/children")

    def first() -> list[str]:
        with contextlib.suppress(OSError):
            return children.read_text().split()
        return []

    wait_for(lambda: first() or world.poll() is not None, "the first process in the namespaces")
    with contextlib.suppress(ProcessLookupError, IndexError):
        process = os.pidfd_open(int(first()[0]))
        # In this order: unshare complains of a child that was killed.
        world.kill()
        signal.pidfd_send_signal(process, signal.SIGKILL)
        select.select([process], [], [])
    world.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
