from __future__ import annotations

import array
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from container_healthcheck.parsing import Bind
from container_healthcheck.server import handover
from sandbox.waiting import free_port

# As systemd does it: the socket is number 3, and LISTEN_PID is the process itself.
_STARTED = """
import os, sys
from container_healthcheck.server import handover
from container_healthcheck.parsing import Bind
environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
print(handover.adopt(Bind("127.0.0.1", int(sys.argv[1])), environ), sorted(environ))
"""


def start_with(listener: socket.socket, port: int) -> str:
    descriptor = listener.fileno()
    shell = f'exec 3<&{descriptor} "$0" -c "$1" {port}'
    command = ["bash", "-c", shell, sys.executable, _STARTED]
    done = subprocess.run(command, pass_fds=[descriptor], capture_output=True, check=True)
    return done.stdout.decode().strip()


def test_a_socket_of_the_address_is_taken_over() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        assert start_with(listener, port) == "True ['LISTEN_FDS', 'LISTEN_PID']"
        socket.create_connection(("127.0.0.1", port)).close()


def test_a_socket_of_another_address_is_ended() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert start_with(listener, free_port()) == "False []"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(listener.getsockname())


def test_without_systemd_nothing_is_taken_over() -> None:
    assert not handover.adopt(Bind("127.0.0.1", 4246), {})
    assert not handover.adopt(Bind("127.0.0.1", 4246), {"LISTEN_PID": "1", "LISTEN_FDS": "1"})


def test_the_socket_is_handed_to_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "notify")
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd,
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):
        systemd.bind(path)
        monkeypatch.setenv("NOTIFY_SOCKET", path)

        handover.store(listener)

        said, ((_, _, descriptors), *_), *_ = systemd.recvmsg(100, 100)
        assert said == b"FDSTORE=1"
        (received,) = array.array("i", descriptors)
        assert os.path.sameopenfile(received, listener.fileno())
        os.close(received)


@pytest.mark.parametrize("address", ["", "/nowhere/notify"])
def test_no_systemd_is_no_harm(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        handover.store(listener)
