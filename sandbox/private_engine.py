"""A private Docker engine in namespaces of its own.

It never touches an engine that is there already: network, mount and PID namespace, folders, socket
and parent cgroup are its own (dockerd with `--bridge=none` deletes a `docker0` that it can see).
Ending the first process of its namespaces ends the engine and all its containers.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import docker
import requests

from sandbox import programs
from sandbox.waiting import LIMIT, NeverHappenedError, wait_for

IMAGE = "python36e:1.1"
SLEEP = "sh /build/builder"
_PROGRAMS = ("dockerd", "containerd", "runc", "unshare", "ip", "busybox")
_CGROUPS = Path("/sys/fs/cgroup")


class SandboxError(Exception):
    """An engine cannot be started here; the text says what is missing."""


def missing() -> str | None:
    """What keeps this machine from running a private engine, or None."""
    return programs.missing(
        "a private Docker engine", _PROGRAMS, "docker.io, busybox-static, iproute2"
    )


class PrivateEngine:
    """A dockerd of our own, with its folders in `folder`; a context manager that leaves nothing.

    `own_network` False leaves it in the caller's network namespace, which must then be one that was
    made for the purpose: containers with host networking and the caller share its loopback.
    """

    def __init__(
        self,
        *,
        live_restore: bool = True,
        own_network: bool = True,
        options: Sequence[str] = (),
    ) -> None:
        problem = missing()
        if problem:
            raise SandboxError(problem)
        # The path of a Unix socket has to be short.
        self.folder = Path(tempfile.mkdtemp(prefix="chc-"))
        self.socket = self.folder / "docker.sock"
        self.url = f"unix://{self.socket}"
        self.log = self.folder / "dockerd.log"
        self._cgroup = self.folder.name
        self._live_restore = live_restore
        self._own_network = own_network
        self._options = options
        self._namespaces: subprocess.Popen[bytes] | None = None
        self._daemon: subprocess.Popen[bytes] | None = None
        self._clients: list[docker.DockerClient] = []

    def __enter__(self) -> PrivateEngine:
        try:
            self._open_namespaces()
            self.start()
            self._import_image()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- the engine's own life

    def start(self) -> None:
        """Starts dockerd in its namespaces and waits until it answers."""
        daemon = [
            *("dockerd", "--data-root", self.folder / "data", "--exec-root", self.folder / "exec"),
            *("--pidfile", self.folder / "pid", "-H", self.url, "--cgroup-parent", self._cgroup),
            # Where systemd runs, dockerd would leave the cgroups to it, under other names.
            *("--exec-opt", "native.cgroupdriver=cgroupfs"),
            *("--bridge=none", "--iptables=false", "--ip6tables=false", "--userland-proxy=false"),
            f"--live-restore={str(self._live_restore).lower()}",
            *self._options,
        ]
        # The holder's root as well: this may be a chroot.
        command = [*self.enter("--mount", "--net", "--pid", "--root"), *map(str, daemon)]
        with self.log.open("ab") as log:
            self._daemon = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        self._await_answer()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Stops dockerd and waits for its end; with live-restore its containers go on."""
        assert self._daemon is not None
        self.signal(number)
        self._daemon.wait(timeout=LIMIT)
        self.socket.unlink(missing_ok=True)
        (self.folder / "pid").unlink(missing_ok=True)

    def signal(self, number: signal.Signals) -> None:
        """Sends dockerd a signal."""
        os.kill(self.pid, number)
        if number == signal.SIGCONT:
            self._wake_nsenter()

    def _wake_nsenter(self) -> None:
        # It stops itself when dockerd is stopped, and would never see its end.
        if self._daemon is not None:
            self._daemon.send_signal(signal.SIGCONT)

    @property
    def pid(self) -> int:
        """The process id of dockerd, outside its namespace."""
        return dockerd_pid(self.socket)

    def close(self) -> None:
        """Ends everything and removes every trace."""
        for client in self._clients:
            client.close()
        if self._namespaces is not None:
            self._namespaces.kill()
            self._namespaces.wait(timeout=LIMIT)
            self._wake_nsenter()
            if self._daemon is not None:
                self._daemon.wait(timeout=LIMIT)
        remove_cgroups(self._cgroup)
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- containers

    def client(self) -> docker.DockerClient:
        """A docker-py client of this engine."""
        client = docker.DockerClient(base_url=self.url, version="auto", timeout=60)
        self._clients.append(client)
        return client

    def run(self, name: str, command: str = SLEEP, **options: Any) -> Any:
        """Starts a container as paasagent does, and returns docker-py's object of it."""
        client = self._clients[0]
        return client.containers.run(
            IMAGE, command, name=name, detach=True, network_mode="host", init=False, **options
        )

    def api(self, method: str, path: str, json: Mapping[str, Any] | None = None) -> Any:
        """Asks the engine something that docker-py has no call for."""
        api = self._clients[0].api
        return requests.Session.request(api, method, f"{api.base_url}{path}", json=json, timeout=60)

    def _import_image(self) -> None:
        self.client().api.import_image_from_data(root_filesystem(), *_repository(IMAGE))

    # --- the rest

    def _open_namespaces(self) -> None:
        # A first process that only holds the namespaces: dockerd may come and go in them. It reaps,
        # too: the next dockerd would take the containerd of a killed one for a living one.
        unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        if self._own_network:
            unshare.append("--net")
        holder = "ip link set lo up; echo ready; while :; do sleep 3600 & wait; done"
        self._namespaces = subprocess.Popen(
            [*unshare, "sh", "-c", holder], stdout=subprocess.PIPE, start_new_session=True
        )
        assert self._namespaces.stdout is not None
        if self._namespaces.stdout.readline() != b"ready\n":
            raise SandboxError("namespaces cannot be made here")
        self._namespaces.stdout.close()

    @property
    def _holder(self) -> int:
        """The process id of the first process in the engine's namespaces."""
        assert self._namespaces is not None
        children = Path(f"/proc/{self._namespaces.pid}/task/{self._namespaces.pid}/children")
        return int(children.read_text().split()[0])

    def enter(self, *namespaces: str) -> list[str]:
        """What to put before a command that is to run in these of the engine's namespaces."""
        return ["nsenter", "-t", str(self._holder), *namespaces]

    def _await_answer(self) -> None:
        try:
            wait_for(self._answers, "dockerd to answer")
        except NeverHappenedError as error:
            raise SandboxError(f"{error}\n{self.log.read_text()[-2000:]}") from error

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(LIMIT)
            try:
                connection.connect(str(self.socket))
                connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
                return b" 200 " in connection.recv(100)
            except OSError:
                return False


def dockerd_pid(socket: Path) -> int:
    """The process id, as the caller's namespace has it, of the dockerd with this socket."""
    inner = (socket.parent / "pid").read_text().strip()
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            text = status.read_text()
            if f"\t{inner}\n" in text and _is_dockerd(status.parent, inner, socket):
                return int(status.parent.name)
    raise SandboxError("dockerd is not running")


def _is_dockerd(process: Path, inner: str, socket: Path) -> bool:
    fields = (process / "status").read_text()
    namespaces = next(line for line in fields.splitlines() if line.startswith("NSpid:")).split()
    return namespaces[-1] == inner and str(socket).encode() in (process / "cmdline").read_bytes()


def remove_cgroups(name: str) -> None:
    """Waits until nothing runs in the cgroups of this name and below, and removes them."""

    def folders() -> list[Path]:
        # Not by glob: other engines' folders vanish while it looks, which it does not forgive.
        every = (Path(folder) for folder, _, _ in os.walk(_CGROUPS))
        return [folder for folder in every if name in folder.parts]

    def empty() -> bool:
        for folder in folders():
            with contextlib.suppress(OSError):
                if (folder / "cgroup.procs").read_text().strip():
                    return False
        return True

    wait_for(empty, "the containers to end")
    for folder in sorted(folders(), key=lambda each: -len(each.parts)):
        with contextlib.suppress(OSError):
            folder.rmdir()


def root_filesystem() -> bytes:
    """A tar archive of a root file system that holds nothing but a static busybox."""
    busybox = Path(str(shutil.which("busybox")))
    builder = b"#!/bin/sh\ntrap 'exit 0' TERM\nsleep 2147483647 & wait\n"
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(busybox.resolve(), "bin/busybox")
        for applet in (
            "sh",
            "sleep",
            "cat",
            "echo",
            "httpd",
            "test",
            "kill",
            "mkdir",
            "rm",
            "true",
        ):
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "/bin/busybox"
            tar.addfile(link)
        for folder in ("proc", "sys", "dev", "tmp", "etc"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        script = tarfile.TarInfo("build/builder")
        script.size, script.mode = len(builder), 0o755
        tar.addfile(script, io.BytesIO(builder))
    return archive.getvalue()


def _repository(image: str) -> tuple[str, str]:
    name, _, tag = image.partition(":")
    return name, tag
