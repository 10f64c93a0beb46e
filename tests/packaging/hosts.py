"""Hosts to install into: containers of a private engine, bare ones and ones with systemd."""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sandbox.kept import kept
from sandbox.private_engine import PrivateEngine, root_filesystem
from sandbox.waiting import wait_for, wait_until

SOURCE = Path(__file__).parent.parent.parent
UNIT = "container-healthcheck"
SYSCONFIG = "/etc/sysconfig/container-healthcheck"
LOG = "/var/log/container-healthcheck/container-healthcheck.log"
# What it loses of checks while it restarts, in seconds; on a machine that others use, too.
LONGEST_GAP = 1.0
DEBIAN = "bookworm"
_DEBIAN_PACKAGES = "systemd,systemd-sysv,dbus,rpm,rsyslog,logrotate,curl,make,python3-venv"
# Not one of the system calls that Linux got after 3.10, up to what Debian 12 knows of.
NEWER_THAN_3_10 = """
sched_setattr sched_getattr renameat2 seccomp getrandom memfd_create kexec_file_load bpf execveat
userfaultfd membarrier mlock2 copy_file_range preadv2 pwritev2 pkey_mprotect pkey_alloc pkey_free
statx io_pgetevents rseq pidfd_send_signal io_uring_setup io_uring_enter io_uring_register open_tree
move_mount fsopen fsconfig fsmount fspick pidfd_open clone3 close_range openat2 pidfd_getfd
faccessat2 process_madvise epoll_pwait2 mount_setattr quotactl_fd landlock_create_ruleset
landlock_add_rule landlock_restrict_self memfd_secret process_mrelease futex_waitv
set_mempolicy_home_node
"""
SECCOMP_3_10 = json.dumps(
    {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {"names": NEWER_THAN_3_10.split(), "action": "SCMP_ACT_ERRNO", "errnoRet": 38}
        ],
    }
)

_POLLER = """
import http.client, json, sys, time
host, port, path, seconds = "127.0.0.1", int(sys.argv[1]), sys.argv[2], float(sys.argv[3])
# nginx keeps idle connections open.
idle = http.client.HTTPConnection(host, port, timeout=10)
idle.request("GET", path)
idle.getresponse().read()
print("ready", flush=True)
lost, answered, codes, end = [], 0, {}, time.monotonic() + seconds
while time.monotonic() < end:
    at = time.monotonic()
    try:
        connection = http.client.HTTPConnection(host, port, timeout=10)
        connection.request("GET", path)
        code = json.loads(connection.getresponse().read())["code"]
        codes[code] = codes.get(code, 0) + 1
        answered += 1
        connection.close()
    except (OSError, http.client.HTTPException):
        lost.append(at)
    time.sleep(0.01)
print(json.dumps({"lost": lost[-1] - lost[0] if lost else 0, "answered": answered, "codes": codes}))
"""


class Host:
    """A running container that plays a host."""

    def __init__(self, engine: PrivateEngine, container: Any) -> None:
        self.engine = engine
        self.container = container

    def run(self, command: str, *, check: bool = True) -> str:
        """The output of a shell command in it. Raises AssertionError when that fails."""
        # By way of a file: docker-py loses what a command says before its own first look at the
        # connection (its issue 2042).
        said = f"/.said-{uuid.uuid4().hex}"
        wrapped = f"exec >{said} 2>&1\n{command}"
        exit_code = self.container.exec_run(["sh", "-c", wrapped]).exit_code
        output = self._file(said).decode()
        self.container.exec_run(["rm", said])
        assert not check or exit_code == 0, f"{command}: {exit_code}: {output}"
        return output.strip()

    def _file(self, path: str) -> bytes:
        chunks, _ = self.container.get_archive(path)
        with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
            (member,) = archive.getmembers()
            file = archive.extractfile(member)
            assert file is not None
            return file.read()

    def exit_code(self, command: str) -> int:
        """The exit code of a shell command in it."""
        code: int = self.container.exec_run(["sh", "-c", command]).exit_code
        return code

    def ask(self, path: str, port: int = 4246, prefix: str = "/container-healthcheck") -> Any:
        """What the service in it answers to a path, or None."""
        url = f"http://127.0.0.1:{port}{prefix}{path}"
        curl = [*in_network(self.engine), "curl", "-s", "-m", "5", url]
        answer = subprocess.run(curl, capture_output=True, check=False).stdout
        return json.loads(answer) if answer else None

    def property(self, name: str, unit: str = "container-healthcheck") -> str:
        """A property of a unit, as systemd tells it."""
        return self.run(f"systemctl show -p {name} {unit}").partition("=")[2]

    def journal(self) -> list[str]:
        """What the service itself has written to the journal."""
        lines = self.run("journalctl -q -o cat -t container-healthcheck").splitlines()
        return [line for line in lines if line]

    def run_online(self, command: str) -> None:
        """Runs a shell command in its files, but in the network of this machine."""
        self.container.reload()
        pid = str(self.container.attrs["State"]["Pid"])
        engine = self.engine.enter("--pid", "--mount", "--root")
        run([*engine, "nsenter", "-t", pid, "--mount", "sh", "-ec", command])

    @contextmanager
    def polled(self, seconds: float, path: str) -> Iterator[dict[str, Any]]:
        """Asks for a path all the time, on new connections, for so many seconds.

        Afterwards the dictionary says for how long answers were `lost` (s), how many were
        `answered`, and how often each of the `codes` was.
        """
        url = f"/container-healthcheck{path}"
        command = [*in_network(self.engine), sys.executable, "-c", _POLLER, "4246", url]
        process = subprocess.Popen([*command, str(seconds)], stdout=subprocess.PIPE, text=True)
        seen: dict[str, Any] = {}
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield seen
            seen.update(json.loads(process.stdout.read()))
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


def in_network(engine: PrivateEngine) -> list[str]:
    """What comes before a command to run it in the network of an engine's containers."""
    return engine.enter("--net")


# --- a host with nothing but a static busybox


def bare_root(package: Path, folder: Path) -> Path:
    """Installs the package into a root file system with nothing but busybox; returns its tar."""
    root = folder / "root"
    root.mkdir()
    run(["tar", "-x", "-C", str(root)], input=root_filesystem())
    # The host has no rpm: its database is kept elsewhere. Debian's rpm knows of no /bin/sh.
    rpm = ["rpm", "--root", str(root), "--dbpath", "/rpmdb", "--nodeps", "-U", str(package)]
    run(rpm)
    (root / "rpmdb").rename(folder / "rpmdb")
    archive = folder / "root.tar"
    run(["tar", "-c", "-C", str(root), "-f", str(archive), "."])
    shutil.rmtree(root)
    return archive


# --- a host with systemd


def debian_archive() -> Path:
    """A tar of a small Debian with systemd and rpm, made once and kept."""
    made_of = hashlib.sha256(_DEBIAN_PACKAGES.encode()).hexdigest()[:12]
    archive = kept() / f"debian-{DEBIAN}-{platform.machine()}-{made_of}.tar"
    if archive.exists():
        return archive
    with tempfile.TemporaryDirectory(prefix="chc-debian-") as folder:
        root = f"{folder}/root"
        include = f"--include={_DEBIAN_PACKAGES}"
        run(["debootstrap", "--variant=minbase", include, DEBIAN, root])
        shutil.rmtree(f"{root}/var/cache/apt", ignore_errors=True)
        shutil.rmtree(f"{root}/var/lib/apt/lists", ignore_errors=True)
        # Beside its place and renamed: another run may be at the same work.
        new = kept() / f".{os.getpid()}.tar"
        try:
            run(["tar", "-c", "-C", root, "-f", str(new), "."])
            new.rename(archive)
        finally:
            new.unlink(missing_ok=True)
    return archive


def boot(engine: PrivateEngine, image: str, mounts: dict[str, str], docker_gid: int | None) -> Host:
    """Starts a host with systemd as its init; `mounts` are folders here, and where they go."""
    container = engine.client().containers.run(
        image,
        "/sbin/init",
        detach=True,
        network_mode="host",
        cgroupns="host",
        cap_add=["SYS_ADMIN"],
        security_opt=["seccomp=unconfined", "apparmor=unconfined"],
        tmpfs={"/run": "", "/tmp": ""},
        volumes={
            "/sys/fs/cgroup": {"bind": "/sys/fs/cgroup", "mode": "rw"},
            **{here: {"bind": there, "mode": "rw"} for here, there in mounts.items()},
        },
        environment={"container": "docker"},
        stop_signal="SIGRTMIN+3",
    )
    host = Host(engine, container)
    await_boot(host)
    if docker_gid is not None:
        _add_docker_group(host, docker_gid)
    return host


def _add_docker_group(host: Host, gid: int) -> None:
    # The number is this machine's, which the host may have given to another group: that one moves.
    owner = host.run(f"getent group {gid} | cut -d: -f1")
    if owner:
        host.run(f"groupmod -g {50_000 + gid} {owner}")
    host.run(f"groupadd -g {gid} docker")


def await_boot(host: Host) -> None:
    """Waits until systemd has started everything."""
    state = "systemctl is-system-running 2>/dev/null | grep -qE 'running|degraded'"
    wait_for(lambda: host.exit_code(state) == 0, "systemd to have booted")


def run(command: Sequence[str], **options: Any) -> str:
    """Runs a program and returns its output. Raises AssertionError with all it said."""
    result = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, **options
    )
    said: str = result.stdout.decode(errors="replace")
    assert result.returncode == 0, f"{' '.join(command)}: {result.returncode}: {said[-3000:]}"
    return said


# --- the package on a host with systemd


def install(host: Host, package: str = "service") -> None:
    """Installs, upgrades or downgrades to one of the packages."""
    # Debian's rpm has no record of /bin/sh.
    host.run(f"rpm -U --nodeps --oldpackage /packages/{package}.rpm")


def use_engine(host: Host) -> None:
    """Lets the service of a host watch the engine that the host itself runs on."""
    host.run(f"echo DOCKER_HOST=unix:///engine/docker.sock >>{SYSCONFIG}")
    host.run(f"systemctl restart {UNIT}")


def await_ready(host: Host) -> None:
    """Waits until the service on a host knows its engine's containers."""
    wait_until(
        lambda: host.ask("/ready"),
        lambda said: said is not None and said["code"] == 0,
        "the service to be ready",
    )
