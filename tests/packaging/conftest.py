"""The package, built once for the run, and an engine for the hosts it is installed into."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sandbox.private_engine import PrivateEngine
from tests.conftest import give_up, require_engine
from tests.packaging.hosts import SOURCE, Host, boot, debian_archive, in_network, run

_PROGRAMS = ("rpmbuild", "rpm", "rpm2cpio", "cpio", "rpmlint", "debootstrap", "openssl")
TLS_PORT = 2376
NGINX_PORT = 8010


@pytest.fixture(scope="session")
def programs() -> None:
    """Gives up where a program is missing."""
    missing = [program for program in _PROGRAMS if shutil.which(program) is None]
    if missing:
        give_up(f"not installed: {', '.join(missing)}: make test-slow installs them")


@pytest.fixture(scope="session")
def package(programs: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The RPM of this checkout."""
    folder = tmp_path_factory.mktemp("rpm")
    run([str(SOURCE / "packaging/rpm/build"), str(folder)])
    (built,) = folder.glob("*.rpm")
    return built


@dataclass(frozen=True)
class Fleet:
    """An engine for hosts. Its socket is in a folder of its own, to be mounted into them."""

    engine: PrivateEngine
    socket_folder: Path
    certificates: Path

    @property
    def docker_gid(self) -> int:
        """The group of the engine's socket."""
        return (self.socket_folder / "docker.sock").stat().st_gid


@pytest.fixture(scope="session")
def fleet(programs: None) -> Iterator[Fleet]:
    """The engine that all hosts share: they have one network."""
    require_engine()
    with tempfile.TemporaryDirectory(prefix="chc-fleet-") as folder:
        sockets, certificates = Path(folder) / "sockets", Path(folder) / "certificates"
        sockets.mkdir()
        certificates.mkdir()
        Path(folder).chmod(0o755)
        _make_certificates(certificates)
        options = [
            *("-H", f"unix://{sockets}/docker.sock", "-H", f"tcp://127.0.0.1:{TLS_PORT}"),
            *("--tlsverify", "--tlscacert", f"{certificates}/ca.pem"),
            *("--tlscert", f"{certificates}/server.pem"),
            *("--tlskey", f"{certificates}/server-key.pem"),
        ]
        with PrivateEngine(options=options) as engine:
            # In place of each host's nginx; it answers for every app.
            nginx = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(NGINX_PORT)]
            quiet = subprocess.DEVNULL
            answering = subprocess.Popen(
                [*in_network(engine), *nginx], cwd=certificates, stdout=quiet, stderr=quiet
            )
            try:
                yield Fleet(engine, sockets, certificates)
            finally:
                answering.kill()
                answering.wait()


def _make_certificates(folder: Path) -> None:
    def openssl(*arguments: str) -> None:
        run(["openssl", *arguments], cwd=folder)

    key = ("-newkey", "rsa:2048", "-nodes", "-days", "2")
    # As strict verifiers want it, Python 3.13's among them.
    usage = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
    made = ("-keyout", "ca-key.pem", "-out", "ca.pem", "-subj", "/CN=ca")
    openssl("req", "-x509", *key, *usage, *made)
    ca = ("-CA", "ca.pem", "-CAkey", "ca-key.pem", "-CAcreateserial", "-days", "2")
    issuer = "authorityKeyIdentifier=keyid\n"
    (folder / "names").write_text(f"subjectAltName=IP:127.0.0.1\n{issuer}")
    (folder / "client").write_text(f"extendedKeyUsage=clientAuth\n{issuer}")
    for name, extensions in (("server", "names"), ("client", "client")):
        certificate, its_key = f"{name}.pem", f"{name}-key.pem"
        request = ("-keyout", its_key, "-out", f"{name}.csr", "-subj", f"/CN={name}")
        openssl("req", *key[:3], *request)
        signed = ("-in", f"{name}.csr", "-out", certificate, "-extfile", extensions)
        openssl("x509", "-req", *ca, *signed)
    # Docker's names for a client's files.
    (folder / "cert.pem").write_bytes((folder / "client.pem").read_bytes())
    (folder / "key.pem").write_bytes((folder / "client-key.pem").read_bytes())


@pytest.fixture(scope="session")
def debian(fleet: Fleet) -> str:
    """The image of a small Debian with systemd."""
    image = "debian:systemd"
    with debian_archive().open("rb") as archive:
        fleet.engine.client().api.import_image_from_data(archive, "debian", "systemd")
    return image


@pytest.fixture(scope="session")
def packages(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package, the next version of it and one like the Go tool's."""
    folder = tmp_path_factory.mktemp("packages")
    shutil.copy(package, folder / "service.rpm")
    work = tmp_path_factory.mktemp("work")
    run(["sh", "-c", f"mkdir {work}/tree && cd {work}/tree && rpm2cpio {package} | cpio -idm"])
    spec = str(SOURCE / "packaging/rpm/container-healthcheck.spec")
    # The next version is the same tree in another package, packed in a hurry.
    build_rpm(
        work / "next", spec, tree=f"{work}/tree", package_version="99.0.0", payload="w1.gzdio"
    )
    build_rpm(work / "go", str(Path(__file__).parent / "go-tool.spec"))
    for name in ("next", "go"):
        (built,) = (work / name).glob("**/*.rpm")
        shutil.copy(built, folder / f"{name}.rpm")
    return folder


def build_rpm(folder: Path, spec: str, **macros: str) -> None:
    """Builds a package somewhere below the folder."""
    given = {"_topdir": folder / "top", "_rpmdir": folder, "_tmppath": folder, **macros}
    defines = [word for name, value in given.items() for word in ("--define", f"{name} {value}")]
    run(["rpmbuild", "-bb", "--quiet", *defines, spec])


@pytest.fixture(scope="session")
def boot_host(fleet: Fleet, debian: str, packages: Path) -> Callable[..., Any]:
    """Boots hosts with systemd, as a context manager's target: the caller removes them."""

    def start(*, docker_group: bool = True) -> Host:
        mounts = {str(packages): "/packages", str(fleet.socket_folder): "/engine"}
        gid = fleet.docker_gid if docker_group else None
        return boot(fleet.engine, debian, mounts, gid)

    return start


@pytest.fixture
def host(boot_host: Callable[..., Host]) -> Iterator[Host]:
    """A fresh host, in its first minute."""
    fresh = boot_host()
    yield fresh
    fresh.container.remove(force=True)


@pytest.fixture
def groupless(boot_host: Callable[..., Host]) -> Iterator[Host]:
    """A fresh host without a group docker."""
    fresh = boot_host(docker_group=False)
    yield fresh
    fresh.container.remove(force=True)
