"""The package as a file: what is in it, and that it can be read where it is to go."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest

from container_healthcheck import __version__
from container_healthcheck import settings as config
from tests.packaging.hosts import SOURCE, run

# What rpm 4.11 of CentOS 7 can do, of all that a package may ask for.
_OLD_RPM = {"CompressedFileNames", "FileDigests", "PayloadFilesHavePrefix", "PayloadIsXz"}
HOME = "/opt/container-healthcheck"


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def query(package: Path, *arguments: str) -> list[str]:
    return run(["rpm", "-qp", *arguments, str(package)]).splitlines()


def test_it_is_small_and_named_as_promised(package: Path) -> None:
    (architecture,) = query(package, "--qf", "%{arch}")
    assert package.name == f"container-healthcheck-{__version__}-1.{architecture}.rpm"
    assert package.stat().st_size <= 15_000_000


def test_rpm_of_centos_7_can_read_it(package: Path) -> None:
    wants = query(package, "--requires")

    assert {want.split("(")[1].split(")")[0] for want in wants if "(" in want} <= _OLD_RPM
    assert {want for want in wants if not want.startswith("rpmlib(")} == {"/bin/sh"}
    assert query(package, "--qf", "%{payloadcompressor}") == ["xz"]


def test_it_offers_nothing_of_what_it_bundles(package: Path) -> None:
    """To other packages: what begins with `bundled(` is said to scanners."""
    offered = [each for each in query(package, "--provides") if not each.startswith("bundled(")]
    assert all(line.startswith("container-healthcheck") for line in offered)


@pytest.fixture(scope="module")
def unpacked(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package's files."""
    folder = tmp_path_factory.mktemp("unpacked")
    run(["sh", "-c", f"cd {folder} && rpm2cpio {package} | cpio -idm"])
    return folder


def distributions(unpacked: Path) -> dict[str, str]:
    """The Python packages that are really in it, and their versions."""
    found = metadata.distributions(path=[str(*unpacked.glob(f".{HOME}/lib/*/dist-packages"))])
    return {re.sub("[-_.]+", "-", each.name).lower(): each.version for each in found}


_VERSIONS = """
import ssl, zlib, pyexpat, sys, os
from gevent.libev import corecext
print("openssl", ssl.OPENSSL_VERSION.split()[1])
print("zlib", zlib.ZLIB_RUNTIME_VERSION)
print("expat", pyexpat.EXPAT_VERSION.split("_")[1])
print("python3.11", ".".join(map(str, sys.version_info[:3])))
print("glibc", os.confstr("CS_GNU_LIBC_VERSION").split()[1])
print("libev", corecext.get_version().split("-")[1])
"""


def test_it_says_what_it_bundles(package: Path, unpacked: Path) -> None:
    """As the bundled programs themselves tell their versions."""
    provides = (line for line in query(package, "--provides") if line.startswith("bundled("))
    said = dict(line.removeprefix("bundled(").split(") = ") for line in provides)

    home = f"{unpacked}{HOME}"
    (loader,) = Path(home, "lib").glob("ld-linux*")
    python = [str(loader), "--library-path", f"{home}/lib", f"{home}/bin/python3"]
    packages = f"{home}/lib/python3.11/dist-packages"
    environment = {"PYTHONHOME": home, "PYTHONPATH": packages, "PYTHONDONTWRITEBYTECODE": "1"}
    told = run([*python, "-c", _VERSIONS], env=environment).splitlines()
    assert len(told) == 6
    for line in told:
        name, version = line.split()
        assert said.pop(name).removesuffix(".dfsg") == version
    for name, version in distributions(unpacked).items():
        assert said.pop(f"python3dist({name})") == version
    left = {"bzip2", "gcc-12", "libffi", "util-linux", "xz-utils", "c-ares"}
    assert said.keys() == left


def test_its_list_for_scanners(unpacked: Path) -> None:
    """CycloneDX, of the same things as BUNDLED.txt."""
    name = "usr/share/container-healthcheck/sbom.cdx.json"
    sbom = json.loads((unpacked / name).read_text())
    assert (sbom["bomFormat"], sbom["specVersion"]) == ("CycloneDX", "1.5")
    assert sbom["metadata"]["component"]["version"] == __version__
    components = sbom["components"]
    assert len({each["bom-ref"] for each in components}) == len(components)
    listed = {each["name"]: each["version"] for each in components}

    bundled = (unpacked / "usr/share/licenses/container-healthcheck/BUNDLED.txt").read_text()
    assert listed == dict(re.findall(r"^ +(\S+)[\t ](\S+)\tbundled", bundled, re.MULTILINE))
    by_url = {each["purl"]: each["version"] for each in components}
    for name, version in distributions(unpacked).items():
        assert by_url[f"pkg:pypi/{name}@{version}"] == version
    assert any(url.startswith("pkg:deb/debian/libssl3@3") for url in by_url)
    assert all(re.fullmatch(r"pkg:[!-~]+", url) and "+" not in url for url in by_url)


def test_it_holds_what_it_has_to(package: Path) -> None:
    files = set(query(package, "-l"))

    assert {
        "/usr/bin/container-healthcheck",
        "/usr/lib/systemd/system/container-healthcheck.service",
        "/var/log/container-healthcheck",
        "/var/lib/container-healthcheck",
        "/usr/share/container-healthcheck",
        f"{HOME}/share/wsgi.py",
        f"{HOME}/share/gunicorn.conf.py",
        "/usr/share/licenses/container-healthcheck/LICENSE",
        "/usr/share/licenses/container-healthcheck/BUNDLED.txt",
        "/usr/share/licenses/container-healthcheck/debian/libc6",
        "/usr/share/licenses/container-healthcheck/python/gunicorn/LICENSE",
    } <= files
    assert set(query(package, "-c")) == {
        "/etc/sysconfig/container-healthcheck",
        "/etc/rsyslog.d/container-healthcheck.conf",
        "/etc/logrotate.d/container-healthcheck",
    }
    sources = {name for name in files if re.search(r"/container_healthcheck/\w+\.py$", name)}
    compiled = {name for name in files if "/container_healthcheck/__pycache__/" in name}
    expected = {path.name for path in (SOURCE / "container_healthcheck").glob("*.py")}
    assert {Path(name).name for name in sources} == expected
    assert len(compiled) == len(sources)


def test_its_licences_are_all_there(package: Path, tmp_path: Path) -> None:
    run(["sh", "-c", f"cd {tmp_path} && rpm2cpio {package} | cpio -idm './usr/share/licenses/*'"])
    licences = tmp_path / "usr/share/licenses/container-healthcheck"
    debian, python = (licences / "BUNDLED.txt").read_text().split("\nPython packages")

    for text, folder in ((debian, "debian"), (python, "python")):
        named = set(re.findall(r"^  (\S+)\t", text, re.MULTILINE))
        assert named == {path.name for path in (licences / folder).iterdir()}
        assert len(named) > 5


def test_the_settings_file_explains_every_setting(package: Path, tmp_path: Path) -> None:
    run(["sh", "-c", f"cd {tmp_path} && rpm2cpio {package} | cpio -idm './etc/sysconfig/*'"])
    text = (tmp_path / "etc/sysconfig/container-healthcheck").read_text()

    for setting in config.documented_settings():
        assert f"\n#{config.environment_name(setting.name)}=" in text
    assert (
        "\nOPTS=' -level info -prefix /container-healthcheck -port 4246 -ngx-port 8010"
        " -logpath /var/log/container-healthcheck'\n"
    ) in text
    # As it stands there, with every line switched on, it is what is the default anyway.
    assignments = re.findall(r"^#(CONTAINER_HEALTHCHECK_\w+)=(.*)$", text, re.MULTILINE)
    environment = {name: value.strip("'") for name, value in assignments}
    defaults = config.Settings()
    settings = replace(
        config.Settings.from_environment(environment), name_pattern=defaults.name_pattern
    )
    assert settings == defaults
    assert "\\" not in text


# Leaves byte code behind in which other strings are interned, as another version of pip does.
_OTHER_PIP = f"""#!/bin/sh
"$2" -c 'import sys; a = [sys.intern(chr(n)) for n in range(33, 127)]; import compileall'
exec {Path(sys.executable).with_name("pip")} "$@"
"""


def test_the_same_inputs_give_the_same_bytes(package: Path, tmp_path: Path) -> None:
    pip = tmp_path / "pip"
    pip.write_text(_OTHER_PIP)
    pip.chmod(0o755)
    # The time of the last commit is an input, and somebody may commit while this runs.
    (built,) = query(package, "--qf", "%{buildtime}")
    build = [str(SOURCE / "packaging/rpm/build"), str(tmp_path), str(pip)]
    run(build, env={**os.environ, "SOURCE_DATE_EPOCH": built, "PYTHONDONTWRITEBYTECODE": ""})

    assert digest(tmp_path / package.name) == digest(package)


def test_rpmlint_finds_nothing_to_object_to(package: Path) -> None:
    said = run(["rpmlint", "-c", str(SOURCE / "packaging/rpm/rpmlint.toml"), str(package)])

    assert " 0 errors, 0 warnings" in said, said
