"""Programs of other Debian releases than this machine's: unpacked into a folder, not installed.

OpenResty 1.15.8.3 has lua-nginx-module 0.10.15, and BlueKing has Consul 1.7. Neither is in Debian;
Debian 11 has the ones before and after them, and Debian 13 the newest. A program comes with all
that it links to, and is run by its own loader: nothing of this machine but its kernel is used.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from sandbox.kept import kept
from sandbox.nginx import Build

RELEASES = ("bullseye", "bookworm", "trixie")
_NGINX = ("nginx-light", "libnginx-mod-http-lua", "lua-cjson")
_KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
# Debian 11 has this version of the module.
_BULLSEYE_NGX_LUA = 10013


class DebianError(Exception):
    """The packages cannot be had; the text says why."""


def consul() -> Path:
    """The program, Consul 1.8. Raises DebianError."""
    # Go's programs link to nothing.
    return _unpacked("bullseye", "consul") / "usr/bin/consul"


@dataclass(frozen=True)
class Prometheus:
    """The commands of a release's Prometheus."""

    prometheus: tuple[str, ...]
    promtool: tuple[str, ...]


def prometheus(release: str) -> Prometheus:
    """Prometheus 2.24 (bullseye), 2.42 (bookworm), 2.53 (trixie). Raises DebianError."""
    # Its pages and its service need the rest, and that is most.
    root = _unpacked(release, "prometheus", only=("prometheus", "promtool", "libc6"))
    run = _loaded(root)
    return Prometheus(
        prometheus=(*run, str(root / "usr/bin/prometheus")),
        promtool=(*run, str(root / "usr/bin/promtool")),
    )


def nginx(release: str) -> Build:
    """The nginx of a release, with lua-nginx-module. Raises DebianError.

    Debian 11 has no lua-resty-core, of which OpenResty bundles the version that fits: Debian 12's
    is taken, which calls the same functions of the module, without the check of the version.
    `receiveany` came with 0.10.14: bytes are received one by one instead.
    """
    root = _unpacked(release, *_NGINX)
    lua = root / "usr/share/lua/5.1"
    edits: tuple[tuple[str, str], ...] = ()
    if release == "bullseye":
        lua, edits = root / "resty-core", (("receiveany(65536)", "receive(1)"),)
        _adapt_resty_core(lua)
    return Build(
        command=(*_loaded(root), str(root / "usr/sbin/nginx")),
        modules=root / "usr/lib/nginx/modules",
        lua_libraries=root / f"usr/lib/{_triplet()}/lua/5.1",
        root=root,
        lua=lua,
        edits=edits,
    )


def _loaded(root: Path) -> tuple[str, ...]:
    """What to put before a program, so that it runs with its own release's libraries."""
    libraries = [root / f"{each}/{_triplet()}" for each in ("usr/lib", "lib")]
    loader = next(path for folder in libraries for path in folder.glob("ld-linux*.so.*"))
    search_path = ":".join(str(each) for each in libraries if each.exists())
    return str(loader), "--library-path", search_path


def _triplet() -> str:
    return f"{platform.machine()}-linux-gnu"


def _unpacked(release: str, *packages: str, only: tuple[str, ...] = ("*",)) -> Path:
    name = f"debian-{release}-{packages[0]}-{platform.machine()}-1"
    folder = kept() / name
    if folder.exists():
        return folder
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=kept()) as temporary:
        _download(release, packages, Path(temporary))
        root = Path(temporary) / "root"
        archives = Path(temporary) / "cache/archives"
        for package in [path for each in only for path in archives.glob(f"{each}_*.deb")]:
            _run("dpkg-deb", "--extract", str(package), str(root))
        try:
            root.rename(folder)
        except OSError:
            # Another run was quicker.
            if not folder.exists():
                raise
    return folder


def _download(release: str, packages: tuple[str, ...], folder: Path) -> None:
    """The packages with all that they depend on: for this apt, nothing is installed yet."""
    source = folder / "sources.list"
    source.write_text(f"deb [signed-by={_KEYS}] {_mirror()} {release} main\n")
    (folder / "state/lists/partial").mkdir(parents=True)
    (folder / "cache/archives/partial").mkdir(parents=True)
    (folder / "state/status").touch()
    configuration = folder / "apt.conf"
    configuration.write_text(
        f'Dir::Etc::sourcelist "{source}";\nDir::Etc::sourceparts "-";\n'
        f'Dir::Etc::preferences "-";\nDir::Etc::preferencesparts "-";\n'
        f'Dir::State "{folder}/state";\nDir::State::status "{folder}/state/status";\n'
        f'Dir::Cache "{folder}/cache";\nAPT::Sandbox::User "";\nAPT::Install-Recommends "false";\n'
        # A list that could not be fetched is no list without the package: apt is to say so, and to
        # try again before it does.
        'APT::Update::Error-Mode "any";\nAcquire::Retries "5";\n'
        # Nor what this machine does with the packages that it downloads.
        "#clear DPkg::Pre-Install-Pkgs;\n#clear DPkg::Post-Invoke;\n"
        "#clear APT::Update::Post-Invoke;\n#clear APT::Update::Post-Invoke-Success;\n"
        'Binary::apt-get::APT::Keep-Downloaded-Packages "true";\n'
    )
    install = ("apt-get", "-q", "-y", "--download-only", "install")
    try:
        _run("apt-get", "-q", "update", configuration=configuration, cwd=folder)
        _run(*install, *packages, configuration=configuration, cwd=folder)
    except DebianError as error:
        message = f"{error}\nName a mirror that has {release} in DEBIAN_MIRROR."
        raise DebianError(message) from error


def _mirror() -> str:
    """Where this machine has its own Debian from, or what DEBIAN_MIRROR says."""
    given = os.environ.get("DEBIAN_MIRROR")
    if given:
        return given
    targets = _run("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages")
    found = re.search(r"^\S+/debian(\.list)?/?$", targets, re.MULTILINE)
    if not found:
        raise DebianError("apt has no Debian mirror here: name one in DEBIAN_MIRROR")
    return found.group()


def _adapt_resty_core(folder: Path) -> None:
    if folder.exists():
        return
    core = ("lua-resty-core",)
    resty = _unpacked("bookworm", *core, only=core) / "usr/share/lua/5.1"
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        made = Path(temporary) / "lua"
        shutil.copytree(resty / "resty/core", made / "resty/core")
        shutil.copytree(resty / "ngx", made / "ngx")
        base = made / "resty/core/base.lua"
        required = r"(ngx_lua_version ~= )\d+"
        text, count = re.subn(required, rf"\g<1>{_BULLSEYE_NGX_LUA}", base.read_text(), count=1)
        if not count:
            raise DebianError(f"{base.name} does not check the version as expected")
        base.write_text(text)
        try:
            made.rename(folder)
        except OSError:
            if not folder.exists():
                raise


def _run(*command: str, configuration: Path | None = None, cwd: Path | None = None) -> str:
    environment = {**os.environ, **({"APT_CONFIG": str(configuration)} if configuration else {})}
    try:
        done = subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise DebianError(f"not installed: {error.filename}") from error
    if done.returncode:
        raise DebianError(f"{' '.join(command)}: {done.stdout[-1000:]}{done.stderr[-1000:]}")
    return done.stdout
