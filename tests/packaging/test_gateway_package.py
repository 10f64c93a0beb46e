"""The gateway's package, on a host with systemd where an nginx serves under OpenResty's paths."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sandbox import debian_release
from sandbox.gateway import PACKAGING
from sandbox.nginx import Build
from sandbox.waiting import wait_for, wait_until
from tests.conftest import give_up
from tests.gateway.openresty import PREFIX, configuration
from tests.packaging.conftest import Fleet
from tests.packaging.hosts import SOURCE, Host, boot, run

LUA = f"{PREFIX}/lua/container-healthcheck"
HTTP = f"{PREFIX}/conf/conf.d/container-healthcheck.conf"
STATUS = f"{PREFIX}/conf/container-healthcheck-status.conf"
UPSTREAM = f"{PREFIX}/conf/container-healthcheck-upstream.conf"
COMMAND = "/usr/sbin/container-healthcheck-gateway"
SBOM = "/usr/share/container-healthcheck-gateway/sbom.cdx.json"
SITE = f"{PREFIX}/conf/conf.d/paas.conf"
TEMPLATE = "/etc/consul-template/templates/paas.conf"
NGINX = f"{PREFIX}/sbin/nginx"
NEXT_STEP = f"{NGINX} -t && {NGINX} -s reload"
# Hosts share one network: these addresses and this port are this host's.
SERVERS = ("127.0.5.1:8010", "127.0.5.2:8010")
PORT = 8480
UNIT = f"""[Service]
ExecStart={NGINX} -g 'daemon off;'
"""


@pytest.fixture(scope="session")
def gateway_package(programs: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The gateway's RPM of this checkout."""
    folder = tmp_path_factory.mktemp("gateway-rpm")
    run([str(SOURCE / "packaging/rpm/build-gateway"), str(folder)])
    (built,) = folder.glob("*.rpm")
    return built


@pytest.fixture(scope="session")
def gateway_packages(gateway_package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with that and the next version of it."""
    folder, work = (tmp_path_factory.mktemp(each) for each in ("gateway-rpms", "gateway-next"))
    shutil.copy(gateway_package, folder / "gateway.rpm")
    changed = work / "source"
    parts = ("packaging", "CHANGELOG.md", "LICENSE")
    for part in parts:
        copy = shutil.copytree if (SOURCE / part).is_dir() else shutil.copy
        changed.mkdir(exist_ok=True)
        copy(SOURCE / part, changed / part)
    version = gateway_package.name.split("-")[-2]
    for path in (changed / "packaging/openresty/lua").rglob("*.lua"):
        path.write_text(path.read_text().replace(version, "99.0.0"))
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1800000000"}
    run([str(changed / "packaging/rpm/build-gateway"), str(work)], env=environment)
    (built,) = work.glob("*.rpm")
    assert "99.0.0" in built.name
    shutil.copy(built, folder / "next.rpm")
    return folder


def query(package: Path, *arguments: str) -> list[str]:
    return run(["rpm", "-qp", *arguments, str(package)]).splitlines()


def test_it_holds_what_it_has_to(gateway_package: Path) -> None:
    files = set(query(gateway_package, "-l"))
    lua = PACKAGING / "openresty" / "lua"
    assert {f"{LUA}/{path.relative_to(lua)}" for path in lua.rglob("*.lua")} <= files
    assert {COMMAND, UPSTREAM, SBOM} <= files
    assert set(query(gateway_package, "-c")) == {HTTP, STATUS}
    wants = {each for each in query(gateway_package, "--requires") if "rpmlib" not in each}
    assert wants == {"/bin/sh"}
    assert query(gateway_package, "--qf", "%{arch} %{payloadcompressor}") == ["noarch xz"]


def test_its_list_for_scanners(gateway_package: Path, tmp_path: Path) -> None:
    """CycloneDX: it bundles nothing, and lists its own files."""
    run(["sh", "-c", f"cd {tmp_path} && rpm2cpio {gateway_package} | cpio -idm"])
    sbom = json.loads((tmp_path / SBOM.lstrip("/")).read_text())
    assert sbom["metadata"]["component"]["version"] == gateway_package.name.split("-")[-2]
    files = {each["name"]: each["hashes"] for each in sbom["components"]}
    for name, ((_, alg), (_, content)) in ((n, h[0].items()) for n, h in files.items()):
        assert alg == "SHA-256"
        assert hashlib.sha256((tmp_path / name.lstrip("/")).read_bytes()).hexdigest() == content
    there = {f"/{path.relative_to(tmp_path)}" for path in tmp_path.rglob("*") if path.is_file()}
    assert there - {SBOM} == files.keys()
    assert not [each for each in query(gateway_package, "--provides") if "bundled" in each]


def test_the_same_inputs_give_the_same_bytes(gateway_package: Path, tmp_path: Path) -> None:
    (built,) = query(gateway_package, "--qf", "%{buildtime}")
    environment = {**os.environ, "SOURCE_DATE_EPOCH": built}
    run([str(SOURCE / "packaging/rpm/build-gateway"), str(tmp_path)], env=environment)
    assert (tmp_path / gateway_package.name).read_bytes() == gateway_package.read_bytes()


def test_rpmlint_finds_nothing_to_object_to(gateway_package: Path) -> None:
    filters = str(SOURCE / "packaging/rpm/rpmlint-gateway.toml")
    said = run(["rpmlint", "-c", filters, str(gateway_package)])
    assert " 0 errors, 0 warnings" in said, said


# --- on a host


def _server(location: str) -> str:
    return f"""server {{
    listen 127.0.0.1:{PORT};
    set $appo_servers "{" ".join(SERVERS)}";
{location}
}}
"""


STOCK = _server("    location ~ ^/o/([^/]+) { set $app $1; proxy_pass http://$app; }")
OURS = _server(
    (PACKAGING / "openresty" / "location.conf").read_text()
    + "include container-healthcheck-status.conf;"
)
APPO = (
    "upstream bk_iam { "
    + "".join(f"server {each}; " for each in SERVERS)
    + "}\nserver {\n"
    + "".join(f"    listen {each};\n" for each in SERVERS)
    + """    location /o/ { return 200 "served"; }
    location = /container-healthcheck/health { return 200 '{"message":"i\\'m healthy"}'; }
    location /container-healthcheck/ {
        default_type application/json;
        return 200 '{"code":0,"status":"ok","message":{"bk_iam":0}}';
    }
}
"""
)


def write(host: Host, name: str, text: str, mode: int = 0o644) -> None:
    """Writes a file of the host, and makes its folder."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        entry = tarfile.TarInfo(name.lstrip("/"))
        entry.size, entry.mode = len(text.encode()), mode
        archive.addfile(entry, io.BytesIO(text.encode()))
    host.run(f"mkdir -p {Path(name).parent}")
    assert host.container.put_archive("/", data.getvalue())


@pytest.fixture
def host(fleet: Fleet, debian: str, gateway_packages: Path) -> Iterator[Host]:
    """A gateway that routes as without the package."""
    try:
        build = debian_release.nginx("bookworm")
    except debian_release.DebianError as error:
        give_up(str(error))
    # The kept nginx lies in the host where it lies here.
    mounts = {str(gateway_packages): "/packages", str(build.root): str(build.root)}
    fresh = boot(fleet.engine, debian, mounts, None)
    try:
        _furnish(fresh, build)
        yield fresh
    finally:
        fresh.container.remove(force=True)


def _furnish(host: Host, build: Build) -> None:
    host.run(f"mkdir -p {PREFIX}/conf/conf.d {PREFIX}/logs /var/lib/nginx")
    command = " ".join(build.command)
    own = f"-p {PREFIX}/ -c {PREFIX}/conf/nginx.conf -e {PREFIX}/logs/error.log"
    write(host, NGINX, f'#!/bin/sh\nexec {command} {own} "$@"\n', 0o755)
    # OpenResty bundles these.
    host.run(f"mkdir -p /usr/share/lua && ln -s {build.lua} /usr/share/lua/5.1")
    libraries = f'lua_package_cpath "{build.lua_libraries}/?.so;;";\ninclude conf.d/*.conf;'
    text = configuration(build.modules).replace("include conf.d/*.conf;", libraries)
    write(host, f"{PREFIX}/conf/nginx.conf", text)
    write(host, f"{PREFIX}/conf/conf.d/appo.conf", APPO)
    write(host, TEMPLATE, STOCK)
    write(host, SITE, STOCK)
    write(host, "/etc/systemd/system/openresty.service", UNIT)
    host.run("systemctl daemon-reload && systemctl start openresty")
    wait_for(lambda: status(host, "/o/bk_iam/") == "200", "nginx to serve")


def status(host: Host, path: str) -> str:
    """What a user gets."""
    return host.run(f"curl -s -o /dev/null -w '%{{http_code}}' http://127.0.0.1:{PORT}{path} || :")


def workers(host: Host) -> set[str]:
    """The process ids of nginx's two workers, once others have left."""
    master = host.property("MainPID", "openresty")
    # While a process ends, the kernel may list none.
    listed = f"cat /proc/{master}/task/{master}/children"
    return wait_until(lambda: set(host.run(listed).split()), lambda pids: len(pids) == 2, "workers")


def use(host: Host, site: str) -> None:
    """What the operator does: another site, and a reload."""
    write(host, TEMPLATE, site)
    write(host, SITE, site)
    reload(host)


def reload(host: Host) -> None:
    """The next step that the package names, and new workers for it."""
    old = workers(host)
    host.run(NEXT_STEP)
    wait_for(lambda: not workers(host) & old, "new workers")


def install(host: Host, package: str) -> str:
    return host.run(f"rpm -U --nodeps --oldpackage /packages/{package}.rpm 2>&1")


def versions(host: Host) -> set[str]:
    """Those of the files."""
    said = host.run(f"grep -rhoE '^-- container-healthcheck [0-9.]+' {LUA} | sort -u")
    return {line.split()[-1] for line in said.splitlines()}


@contextmanager
def users(host: Host) -> Iterator[None]:
    """Users all the time, who all get 200."""
    loop = "while [ ! -e /run/stop ]; do curl -s -o /dev/null -w '%{http_code}\\n' "
    loop += f"http://127.0.0.1:{PORT}/o/bk_iam/ || echo failed; done"
    host.run(f"rm -f /run/stop; ({loop}) >/run/codes 2>&1 & :")
    wait_for(lambda: host.run("wc -l </run/codes") != "0", "the first answer")
    yield
    seen = int(host.run("wc -l </run/codes"))
    wait_for(lambda: int(host.run("wc -l </run/codes")) > seen + 20, "more answers")
    host.run("touch /run/stop")
    assert host.run("sort -u /run/codes") == "200"


def await_known(host: Host) -> None:
    """Waits until the gateway has heard of both servers."""

    def known() -> int:
        status(host, "/o/bk_iam/")
        page = f"curl -s http://127.0.0.1:{PORT}/container-healthcheck-gateway"
        return host.run(page).count('"state":"known"')

    wait_until(known, (2).__eq__, "both servers to be known")


def test_its_life(host: Host) -> None:
    """Nothing is reloaded but by the operator, and no user notices anything."""
    before = workers(host)
    with users(host):
        said = install(host, "gateway")
        assert said.endswith(NEXT_STEP) and "location.conf" in said
        assert workers(host) == before
        use(host, OURS)
        await_known(host)
        (first,) = versions(host)

        # An upgrade: what the operator changed stays.
        host.run(f"sed -i 's/container_healthcheck 4m/container_healthcheck 8m/' {HTTP}")
        before = workers(host)
        said = install(host, "next")
        assert said.endswith(f"next, {NEXT_STEP}")
        assert versions(host) == {"99.0.0"} and workers(host) == before
        assert "container_healthcheck 8m" in host.run(f"cat {HTTP}")
        reload(host)
        await_known(host)

        install(host, "gateway")
        assert versions(host) == {first}
        reload(host)
        await_known(host)
    assert "stock routing" not in host.run(f"cat {PREFIX}/logs/error.log")

    # While a location names it, it stays; the old package's scriptlet says so at once.
    with users(host):
        refused = host.run("rpm -e container-healthcheck-gateway 2>&1", check=False)
        assert SITE in refused and TEMPLATE in refused and "not removed" in refused
        assert host.exit_code("rpm -q container-healthcheck-gateway") == 0
        assert versions(host) == {first}
        use(host, STOCK)
        said = host.run("rpm -e container-healthcheck-gateway 2>&1")
        assert NEXT_STEP in said and f"{HTTP}.rpmsave" in said
        assert host.exit_code(f"ls {LUA} {HTTP} {STATUS}") != 0
        reload(host)
    assert "health" not in host.run(f"ls -R {PREFIX} | grep -v rpmsave")


def test_files_that_were_copied_by_hand(host: Host) -> None:
    """Its configuration stays as it is, and the package says what to compare it with."""
    write(host, f"{LUA}/container_healthcheck.lua", "-- of version 2.0.0\n")
    write(host, HTTP, "# mine\n")
    said = install(host, "gateway")
    assert f"compare it with {HTTP}.rpmnew" in said
    assert host.run(f"cat {HTTP}") == "# mine"
    assert len(versions(host)) == 1
    assert "VERSION" in host.run(f"cat {LUA}/container_healthcheck.lua")
    reload(host)
    assert status(host, "/o/bk_iam/") == "200"


def test_a_template_alone_holds_it_back(host: Host) -> None:
    """What consul-template is about to render counts as well; a comment does not."""
    install(host, "gateway")
    use(host, STOCK + "# as apps_balancer.lua did\n")
    write(host, TEMPLATE, OURS)
    refused = host.run("rpm -e container-healthcheck-gateway 2>&1", check=False)
    assert f"still named by: {TEMPLATE}" in refused
    write(host, TEMPLATE, STOCK)
    host.run("rpm -e container-healthcheck-gateway")


# --- what lies in conf.d, and the line in upstreams


def test_nginx_rejects_its_file(host: Host) -> None:
    """The site has a lua_package_path of its own: the site's reloads go on."""
    write(host, f"{PREFIX}/conf/conf.d/own.conf", 'lua_package_path "/srv/?.lua;;";\n')
    with users(host):
        said = install(host, "gateway")
        assert f"nginx rejects {HTTP}, so it is {HTTP}.disabled now: [emerg] " in said
        assert '"lua_package_path" directive is duplicate in' in said
        assert host.exit_code(f"test -e {HTTP}") == 1
        reload(host)
        # The next version tries again.
        said = install(host, "next")
        assert f"{HTTP}.disabled now" in said and host.exit_code(f"test -e {HTTP}") == 1
        host.run(f"rm {PREFIX}/conf/conf.d/own.conf")
        assert "disabled" not in install(host, "gateway")
        assert host.exit_code(f"test -e {HTTP}") == 0
        reload(host)
        host.run("rpm -e container-healthcheck-gateway")
        assert host.exit_code(f"ls {HTTP} {HTTP}.disabled") != 0


def test_the_site_is_broken_already(host: Host) -> None:
    """Nobody can tell whether our file is taken, until that is mended."""
    broken = f"{PREFIX}/conf/conf.d/broken.conf"
    write(host, broken, "nonsense;\n")
    said = install(host, "gateway")
    assert "nginx rejects its configuration, with this package's file and without: " in said
    assert '[emerg] unknown directive "nonsense"' in said
    assert f"{HTTP} is {HTTP}.disabled until that is mended" in said
    assert host.exit_code(f"test -e {HTTP}") == 1
    host.run(f"rm {broken}; mv {HTTP}.disabled {HTTP}")
    reload(host)
    # What is in use stays.
    write(host, broken, "nonsense;\n")
    assert "with this package's file and without" in install(host, "next")
    assert host.exit_code(f"test -e {HTTP}") == 0
    assert status(host, "/o/bk_iam/") == "200"


UPSTREAMS = "".join(
    f"upstream {app} {{\n" + "".join(f"    server {each};\n" for each in SERVERS) + "}\n"
    for app in ("bk_iam",)
)
LOOP = """{{ range ls "bkapps/upstreams/prod" }}
upstream {{ .Key }} {
    {{ range .Value | parseJSON }}server {{ . }};
    {{ end }}
}
{{ end }}
"""


def test_the_line_holds_it_back(host: Host) -> None:
    """Until the command has taken it out; its backup stays."""
    install(host, "gateway")
    write(host, f"{PREFIX}/conf/conf.d/appo.conf", APPO.partition("\n")[2])
    write(host, f"{PREFIX}/conf/conf.d/app_upstream.conf", UPSTREAMS)
    write(host, "/etc/consul-template/templates/app_upstream.conf.tpl", LOOP)
    reload(host)
    with users(host):
        said = host.run(f"{COMMAND} apply")
        assert "Applied to 1 app upstreams." in said
        assert host.run(f"{COMMAND} check").startswith("OK: 1 app upstreams")
        refused = host.run("rpm -e container-healthcheck-gateway 2>&1", check=False)
        assert "app_upstream.conf.tpl" in refused and "conf.d/app_upstream.conf" in refused
        assert "container-healthcheck-gateway rollback takes the line out" in refused
        host.run(f"{COMMAND} rollback")
        host.run("rpm -e container-healthcheck-gateway")
        reload(host)
    assert host.run("ls /var/lib/container-healthcheck-gateway/backup").split() == [
        *("paths", "rendered", "template")
    ]
