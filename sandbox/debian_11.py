"""Programs of Debian 11, older than this machine's: unpacked into a folder, not installed.

OpenResty 1.15.8.3 has lua-nginx-module 0.10.15, and BlueKing has Consul 1.7. Neither is in Debian;
Debian 11 has the ones before and after them.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from sandbox.kept import kept
from sandbox.nginx import Build

_PACKAGES = (
    "nginx-light",
    "libnginx-mod-http-ndk",
    "libnginx-mod-http-lua",
    "libluajit-5.1-2",
    "libpcre3",
    "libssl1.1",
    "consul",
)
_KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
_RESTY = Path("/usr/share/lua/5.1")
_NGX_LUA = 10013


class DebianError(Exception):
    """The packages cannot be had; the text says why."""


def consul() -> Path:
    """The program, Consul 1.8. Raises DebianError."""
    return _unpacked() / "usr/bin/consul"


def nginx() -> Build:
    """nginx 1.18 with lua-nginx-module 0.10.13. Raises DebianError.

    Debian 11 has no lua-resty-core, of which OpenResty bundles the version that fits: this
    machine's is taken, which calls the same functions of the module, without the check of the
    version. `receiveany` came with 0.10.14: bytes are received one by one instead.
    """
    root = _unpacked()
    return Build(
        program=root / "usr/sbin/nginx",
        modules=root / "usr/lib/nginx/modules",
        libraries=next(root.glob("usr/lib/*/libluajit*")).parent,
        lua=root / "lua",
        edits=(("receiveany(65536)", "receive(1)"),),
    )


def _unpacked() -> Path:
    folder = kept() / f"debian-11-{platform.machine()}-2"
    if folder.exists():
        return folder
    with tempfile.TemporaryDirectory(prefix=".debian-11-", dir=kept()) as temporary:
        _download(Path(temporary))
        root = Path(temporary) / "root"
        for package in Path(temporary).glob("*.deb"):
            _run("dpkg-deb", "--extract", str(package), str(root))
        _adapt_resty_core(root / "lua")
        try:
            root.rename(folder)
        except OSError:
            # Another run was quicker.
            if not folder.exists():
                raise
    return folder


def _download(folder: Path) -> None:
    source = folder / "sources.list"
    source.write_text(f"deb [signed-by={_KEYS}] {_mirror()} bullseye main\n")
    (folder / "state/lists/partial").mkdir(parents=True)
    (folder / "cache/archives/partial").mkdir(parents=True)
    (folder / "state/status").touch()
    configuration = folder / "apt.conf"
    configuration.write_text(
        f'Dir::Etc::sourcelist "{source}";\nDir::Etc::sourceparts "-";\n'
        f'Dir::State "{folder}/state";\nDir::State::status "{folder}/state/status";\n'
        f'Dir::Cache "{folder}/cache";\nAPT::Sandbox::User "";\n'
    )
    try:
        _run("apt-get", "-q", "update", configuration=configuration, cwd=folder)
        _run("apt-get", "-q", "download", *_PACKAGES, configuration=configuration, cwd=folder)
    except DebianError as error:
        raise DebianError(f"{error}\nName a mirror that has bullseye in DEBIAN_MIRROR.") from error


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
    if not (_RESTY / "resty/core").exists():
        raise DebianError("not installed: lua-resty-core")
    for name in ("ngx/balancer.lua", "resty/core/base.lua"):
        (folder / name).parent.mkdir(parents=True)
        shutil.copy(_RESTY / name, folder / name)
    base = folder / "resty/core/base.lua"
    required = r"(ngx_lua_version ~= )\d+"
    text, count = re.subn(required, rf"\g<1>{_NGX_LUA}", base.read_text(), count=1)
    if not count:
        raise DebianError(f"{_RESTY}/resty/core/base.lua does not check the version as expected")
    base.write_text(text)


def _run(*command: str, configuration: Path | None = None, cwd: Path | None = None) -> str:
    environment = {**os.environ, **({"APT_CONFIG": str(configuration)} if configuration else {})}
    try:
        done = subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise DebianError(f"not installed: {error.filename}") from error
    if done.returncode:
        raise DebianError(f"{' '.join(command)}: {done.stdout[-1000:]}{done.stderr[-1000:]}")
    return done.stdout
