"""container-healthcheck-gateway, the command, on a gateway of BlueKing's shape."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sandbox.network import Network
from sandbox.nginx import Nginx
from sandbox.running_service import ask
from sandbox.waiting import wait_for
from tests.conftest import give_up
from tests.gateway.blueking import (
    APP_UPSTREAMS,
    CONF,
    LINE,
    LUA,
    RENDERED,
    STATE,
    TEMPLATE,
    TEMPLATES,
    BlueKing,
    build_consul_template,
)
from tests.gateway.openresty import INTERNAL, PREFIX, PUBLIC
from tests.gateway.test_readme import CHAPTER, COMMAND
from tests.readme import LANGUAGES, chapter, commands, fenced, section

SHELLS = ("dash", "busybox sh")
# That of CentOS 7 is bash.
EVERY_SHELL = (*SHELLS, "bash --posix")
APPS = ["bk_iam", "bk_sops"]
APPOS = ["127.0.6.1:8010", "127.0.6.2:8010"]
NOT_APPO = "127.0.6.1:8082"
HTTP = f"{CONF}/conf.d/container-healthcheck.conf"
# What an APPO server answers: a site of nginx, without a service and apps behind it.
_APPO = f"""
server {{
    listen {"; listen ".join(APPOS)};
    location /o/ {{ return 200 "served"; }}
    location = /container-healthcheck/health {{
        return 200 '{{"code":0,"status":"ok","message":"i\\'m healthy"}}';
    }}
    location /container-healthcheck/ {{
        default_type application/json;
        return 200 '{{"code":0,"status":"ok","message":{{"bk_iam":0,"bk_sops":0}}}}';
    }}
}}
server {{
    listen {NOT_APPO};
    location /o/ {{ return 200 "a view"; }}
}}
"""


@pytest.fixture(scope="session")
def consul_template() -> Path:
    try:
        return build_consul_template()
    except FileNotFoundError:
        give_up("not installed: golang-go")


@pytest.fixture(scope="module")
def appo_sites(network: Network) -> Iterator[None]:
    """Two APPO servers, and a server that is none."""
    with network.entered(), Nginx(_APPO):
        yield


@pytest.fixture
def site(inside: None, appo_sites: None, consul_template: Path) -> Iterator[BlueKing]:
    """A gateway with two apps, before anything was applied."""
    with BlueKing(APPOS, APPS, consul_template) as site:
        yield site


def statuses(site: BlueKing) -> dict[str, str]:
    """What users get for an app by each name."""
    urls = (f"http://{PUBLIC}", f"https://{PUBLIC}", f"http://{INTERNAL}")
    names = " ".join(f"--resolve {n}:{p}:127.0.0.1" for n in (PUBLIC, INTERNAL) for p in (80, 443))
    wanted = " ".join(f"-o /dev/null {url}/o/bk_iam/" for url in urls)
    said = site.run(f"curl -sk -w '%{{http_code}}\\n' {names} {wanted}", check=False).split()
    return dict(zip(urls, said, strict=True))


def assert_users_are_served(site: BlueKing) -> None:
    assert list(statuses(site).values()) == ["301", "200", "200"]


def lines_of_ours(data: bytes) -> int:
    return data.decode().count(LINE)


@contextmanager
def users() -> Iterator[None]:
    """Users all the time, who all get 200."""
    seen: list[int] = []
    ending = threading.Event()

    def go_on() -> None:
        while not ending.is_set():
            seen.append(ask(80, "/o/bk_iam/", headers={"Host": INTERNAL}).status)

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        wait_for(lambda: len(seen) > 10, "the first answers")
        yield
        count = len(seen)
        wait_for(lambda: len(seen) > count + 20, "more answers")
    finally:
        ending.set()
        thread.join()
    assert set(seen) == {200}


# --- the way there and back


@pytest.mark.parametrize("shell", EVERY_SHELL)
def test_there_and_back(site: BlueKing, shell: str) -> None:
    before = site.files()
    done = site.command("check", shell)
    assert done.code == 1
    assert done.said.startswith(
        "WARNING: no app is covered: run container-healthcheck-gateway apply"
    )
    assert f"{TEMPLATE} lacks the line" in done.said

    planned = site.command("plan", shell)
    assert planned.code == 0
    assert f"--- {TEMPLATE}\n" in planned.said and f"--- {RENDERED}\n" in planned.said
    assert planned.said.count(f"\n+    {LINE}\n") == 3
    assert planned.said.endswith("nginx accepts the changed configuration.")
    assert site.command("apply --dry-run", shell) == planned
    assert site.files() == before
    assert site.run(f"ls -A {TEMPLATES} {CONF}/conf.d | grep new || :") == ""

    with users():
        done = site.command("apply", shell)
        assert (
            done.said == f"Applied to 2 app upstreams. The files of before are in {STATE}/backup."
        )
        assert done.code == 0
        after = site.files()
        assert [lines_of_ours(each) for each in after] == [1, 2]
        assert lines_of_ours(after[1].partition(b"# production")[0]) == 0
        assert_users_are_served(site)
        assert "reload-or-restart consul-template" in site.read("/systemctl.log").decode()
        done = site.command("check", shell)
        assert done.code == 0, done.said
        assert done.said.startswith(
            "OK: 2 app upstreams and locations are covered, 2 APPO servers answer"
        )
        assert site.read(f"{STATE}/backup/template") == before[0]
        assert site.read(f"{STATE}/backup/rendered") == before[1]

        inodes = site.run(f"stat -c '%i %Y' {TEMPLATE} {RENDERED}")
        done = site.command("apply", shell)
        assert (done.code, done.said) == (0, "Nothing to change: the line is in place.")
        assert site.run(f"stat -c '%i %Y' {TEMPLATE} {RENDERED}") == inodes

        shown = site.command("rollback --dry-run", shell)
        assert shown.said.count(f"\n-    {LINE}\n") == 3 and site.files() == after
        done = site.command("rollback", shell)
        assert (done.code, done.said) == (0, "Taken back.")
        assert site.files() == before
    assert_users_are_served(site)
    done = site.command("rollback", shell)
    assert (done.code, done.said) == (0, "Nothing to take back: the line is in no file.")


def deploy(site: BlueKing, app: str) -> None:
    """Another app, as BlueKing does it: a key, and consul-template does the rest."""
    site.keys[f"bkapps/upstreams/prod/{app}"] = json.dumps(APPOS)
    site.write_keys()
    site.run("systemctl reload-or-restart consul-template")


def test_a_deployment_after_it(site: BlueKing) -> None:
    """A new app has the line, and a rollback leaves the new app."""
    site.command("apply")
    deploy(site, "bk_new")
    assert lines_of_ours(site.files()[1]) == 3
    assert site.command("check").code == 0
    assert site.command("rollback").code == 0
    template, rendered = site.files()
    assert template.decode() == APP_UPSTREAMS
    assert b"upstream bk_new" in rendered and lines_of_ours(rendered) == 0


def test_an_upgrade_of_blueking_is_noticed(site: BlueKing) -> None:
    """It copies its own template over ours."""
    site.command("apply")
    site.write(TEMPLATE, APP_UPSTREAMS)
    done = site.command("check")
    assert done.code == 1
    assert done.said.startswith(f"WARNING: {TEMPLATE} lacks the line, so that the next rendering")
    deploy(site, "bk_new")
    assert "WARNING: no app is covered" in site.command("check").said
    assert site.command("apply").code == 0
    assert site.command("check").code == 0
    assert [lines_of_ours(each) for each in site.files()] == [1, 3]


def test_another_template_without_the_loop(site: BlueKing) -> None:
    """A rollback still takes the lines out of what was rendered."""
    before = site.files()[1]
    site.command("apply")
    keys = '"bkapps/upstreams/prod"'
    template = APP_UPSTREAMS.replace(
        f"{{{{ range ls {keys} }}}}", f"{{{{ $keys := {keys} }}}}{{{{ range ls $keys }}}}"
    )
    site.write(TEMPLATE, template)
    assert site.command("apply").code == 1
    done = site.command("rollback")
    assert done.code == 0, done.said
    assert site.files() == (template.encode(), before)


# Deploys an app while the command asks the apps.
_CURL = """#!/bin/sh
mkdir /deployed 2>/dev/null && systemctl reload-or-restart consul-template >/dev/null 2>&1
exec /usr/bin/curl "$@"
"""


@pytest.mark.parametrize("command", ["apply", "rollback"])
def test_a_deployment_meanwhile(site: BlueKing, command: str) -> None:
    """It is not written over."""
    if command == "rollback":
        site.command("apply")
    site.keys["bkapps/upstreams/prod/bk_new"] = json.dumps(APPOS)
    site.write_keys()
    site.write("/usr/local/bin/curl", _CURL, mode=0o755)
    done = site.command(command)
    assert b"upstream bk_new" in site.files()[1], done.said
    if command == "apply":
        assert done.code == 1
        assert f"refused: {RENDERED} has changed meanwhile: run it again" in done.said
        assert lines_of_ours(site.files()[1]) == 0
    assert site.command(command).code == 0
    assert lines_of_ours(site.files()[1]) == (3 if command == "apply" else 0)


def test_changes_of_others_outlive_a_rollback(site: BlueKing) -> None:
    site.command("apply")
    template = site.read(TEMPLATE).decode().replace("fail_timeout=30s", "fail_timeout=10s")
    site.write(TEMPLATE, template)
    done = site.command("rollback")
    assert done.code == 0, done.said
    assert f"{TEMPLATE} has changed since apply: its other changes were kept." in done.said
    assert site.read(TEMPLATE).decode() == APP_UPSTREAMS.replace("=30s", "=10s")


@pytest.mark.parametrize("shell", SHELLS)
def test_observing(site: BlueKing, shell: str) -> None:
    """There is another line for it; apply changes one into the other."""
    upstream = site.read(f"{CONF}/container-healthcheck-upstream.conf").decode()
    line = upstream.partition("# observe: ")[2].splitlines()[0]
    before = site.files()
    assert site.command("apply --observe", shell).code == 0
    template, rendered = site.files()
    assert (template.decode().count(line), rendered.decode().count(line)) == (1, 2)
    assert site.command("check", shell).code == 0
    assert_users_are_served(site)
    assert site.command("apply", shell).code == 0
    assert [lines_of_ours(each) for each in site.files()] == [1, 2]
    assert line not in site.files()[1].decode()
    done = site.command("rollback", shell)
    assert (done.code, done.said) == (0, "Taken back.")
    assert site.files() == before


@pytest.mark.parametrize("shell", SHELLS)
def test_it_takes_back_what_makes_answers_worse(site: BlueKing, shell: str) -> None:
    """Lua that fails in a way that nothing foresaw."""
    before = site.files()
    broken = (
        "local M = {}\nfunction M.start() end\nfunction M.balance() ngx.exit(500) end\nreturn M\n"
    )
    site.write(f"{LUA}/container_healthcheck.lua", broken)
    done = site.command("apply", shell)
    assert done.code == 2
    assert "container-healthcheck-gateway: answers got worse:" in done.said
    assert f"  http://{INTERNAL}:80/o/bk_iam/: 200 before, 50" in done.said
    assert f"  https://{PUBLIC}:443/o/bk_sops/: 200 before, 50" in done.said
    assert done.said.endswith("container-healthcheck-gateway: nginx serves as before")
    assert site.files() == before
    assert_users_are_served(site)
    assert not site.path(f"{STATE}/pending").exists()


def test_an_app_that_was_down_already_is_no_reason(site: BlueKing) -> None:
    site.keys["bkapps/upstreams/prod/aa_down"] = json.dumps(["127.0.6.9:8010"])
    site.write_keys()
    site.run("systemctl reload-or-restart consul-template")
    assert site.command("apply").code == 0


# --- interrupted

_STEP = """#!/bin/sh
count=$(($(/usr/bin/cat /steps/count) + 1))
echo $count >/steps/count
if [ $count = "$(/usr/bin/cat /steps/at)" ]; then
    # The command is the leader of its session; `timeout` runs this in another group.
    kill -s "$(/usr/bin/cat /steps/signal)" -- "-$(/usr/bin/cut -d ' ' -f 6 /proc/$$/stat)"
fi
exec %s "$@"
"""
_PROGRAMS = ("cp", "mv", "rm", "mkdir", "touch", "sync", "cmp", "systemctl", "consul-template")


def prepare_steps(site: BlueKing) -> None:
    for program in _PROGRAMS:
        where = "/usr/local/bin" if "s" in program and len(program) > 4 else "/usr/bin"
        site.write(f"/steps/{program}", _STEP % f"{where}/{program}", mode=0o755)
    site.write("/steps/nginx", _STEP % f"{PREFIX}/sbin/nginx", mode=0o755)


def run_until(site: BlueKing, command: str, step: int, signal: str = "KILL") -> tuple[int, int]:
    """Runs it in a session of its own, and kills that before a step; there is no step 0.

    Returns the exit code and how many steps there were.
    """
    for name, value in (("count", "0"), ("at", str(step)), ("signal", signal)):
        site.write(f"/steps/{name}", value)
    done = site.command(
        f"{command} --nginx /steps/nginx", "setsid -w dash", before="PATH=/steps:$PATH"
    )
    return done.code, int(site.read("/steps/count"))


@pytest.mark.slow
@pytest.mark.parametrize("command", ["apply", "rollback"])
def test_killed_before_each_step(site: BlueKing, command: str) -> None:
    """Nothing that nginx would reject is left at any time, and the next run finishes the work."""
    prepare_steps(site)
    stock = site.files()
    site.command("apply")
    ours = site.files()
    start, end = (stock, ours) if command == "apply" else (ours, stock)
    back = "rollback" if command == "apply" else "apply"
    if command == "apply":
        site.command("rollback")
    code, steps = run_until(site, command, 0)
    assert code == 0 and steps > 15 and site.files() == end
    site.command(back)
    for step in range(1, steps + 1):
        assert site.files() == start
        assert run_until(site, command, step)[0] == 137, step
        for found, allowed in zip(site.files(), zip(start, end, strict=True), strict=True):
            assert found in allowed, step
        site.run(f"{PREFIX}/sbin/nginx -t")
        assert_users_are_served(site)
        # On odd steps the same again, on even ones the way back at once.
        if step % 2:
            done = site.command(command)
            assert done.code == 0, (step, done.said)
            assert site.files() == end, step
            assert site.command("check").code == (0 if command == "apply" else 1)
        done = site.command(back)
        assert done.code == 0, (step, done.said)
        assert site.files() == start, step
        assert site.run(f"ls -A {TEMPLATES} {CONF}/conf.d {STATE}").count("new") == 0, step
        assert not site.path(f"{STATE}/pending").exists()


def test_terminated(site: BlueKing) -> None:
    """It says what to do; check sees that it did not come to its end."""
    prepare_steps(site)
    _, steps = run_until(site, "apply", 0)
    site.command("rollback")
    code, _ = run_until(site, "apply", steps - 3, "TERM")
    assert code in (2, 143)
    assert site.command("check").code == 1
    assert "the last run did not come to its end" in site.command("check").said
    assert site.command("apply").code == 0
    assert site.command("check").code == 0


def test_two_at_once(site: BlueKing) -> None:
    """The second says so, and changes nothing."""
    before = site.files()
    done = site.command("apply", f"mkdir -p {STATE}; flock {STATE}/lock dash")
    assert done.code == 1
    assert "refused: another run of container-healthcheck-gateway is under way" in done.said
    assert site.files() == before


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_chapter(site: BlueKing, language: str) -> None:
    """Its examples, as printed; the addresses are other ones."""
    text = section(chapter(language, CHAPTER).read_text(), COMMAND[language])
    shown = [each for kind, block in fenced(text) if kind == "console" for each in commands(block)]
    assert len(shown) == 5
    for command, printed in shown:
        for number, server in enumerate(APPOS, 1):
            printed = printed.replace(f"10.0.0.{number}:8010", server)
        path = "PATH=$PATH:/usr/local/sbin"
        assert site.run(f"{path}\n{command}", check=False) == printed, command


def test_a_location_of_2_1_is_covered(site: BlueKing) -> None:
    """Lua in every production location covers all apps, without a line in the upstreams."""
    site_file, template = f"{CONF}/conf.d/paas.conf", f"{TEMPLATES}/paas.conf"
    text = site.read(site_file).decode()
    lua = f"set $target_up $app;\n        rewrite_by_lua_file {LUA}/apps_balancer.lua;\n"
    ours = text.replace('set $app "$1";\n', f'set $app "$1";\n        {lua}')
    for changed, expected in (
        (
            ours,
            "WARNING: no template in /etc/consul-template/templates has the Lua of the location",
        ),
        (ours.replace(lua, "", 1), "WARNING: not covered: bk_iam bk_sops in "),
    ):
        site.write(site_file, changed)
        done = site.command("check")
        assert done.code == 1 and done.said.startswith(expected), done.said
    site.write(site_file, ours)
    site.write(template, ours)
    done = site.command("check")
    assert done.code == 0, done.said
    assert "locations: 2 of 2 have the Lua of the location" in done.said
    # A site whose upstreams are elsewhere.
    site.run(f"mv {RENDERED} {CONF}/conf.d/others.conf; rm -r /etc/consul-template")
    done = site.command("check")
    assert done.code == 0, done.said
    assert f"APPO server {APPOS[0]}: the service answers" in done.said


# --- refused


def in_production(template: str, old: str, new: str) -> str:
    """The template with a change in its second loop."""
    first, second = template.split("# production")
    assert old in second
    return first + "# production" + second.replace(old, new)


def with_line(text: str) -> str:
    return in_production(
        APP_UPSTREAMS, "upstream {{ .Key }} { \n", f"upstream {{{{ .Key }}}} {{\n{text}\n"
    )


IN_THE_WAY = {
    "ip_hash": ("    ip_hash;", "line 13 already chooses servers: ip_hash;"),
    "hash": ("    hash $request_uri;", "already chooses servers: hash $request_uri;"),
    "least_conn": ("    least_conn;", "already chooses servers: least_conn;"),
    "balancer": (
        "    balancer_by_lua_file /x.lua;",
        "already chooses servers: balancer_by_lua_file",
    ),
}


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("what", IN_THE_WAY)
def test_a_template_that_chooses_servers_itself(site: BlueKing, what: str, shell: str) -> None:
    text, expected = IN_THE_WAY[what]
    site.write(TEMPLATE, with_line(text))
    assert_refused(site, expected, shell)


def assert_refused(site: BlueKing, expected: str, shell: str = "dash", before: str = ":") -> None:
    """plan and apply both refuse for that reason, and change nothing."""
    files = site.files()
    for command in ("plan", "apply"):
        done = site.command(command, shell, before)
        assert done.code == 1, done.said
        assert "container-healthcheck-gateway: refused: " in done.said
        assert expected in done.said
    assert site.files() == files
    assert not site.path(f"{STATE}/pending").exists()
    left = site.run(f"ls -A {TEMPLATES} {CONF}/conf.d {STATE} 2>/dev/null || :")
    assert "new" not in left and "work" not in left


EDITED = {
    "no production loop": (
        APP_UPSTREAMS.partition("# production")[0],
        "none of consul-template's templates has a loop over …/upstreams/prod",
    ),
    "services": (
        'upstream OPEN_PAAS {\n{{ range service "paas" }}server {{ .Address }};\n{{ end }}}\n',
        "are for services that are no apps",
    ),
    "two loops": (
        APP_UPSTREAMS + "\n" + APP_UPSTREAMS.partition("# production")[2],
        "it was edited: expected were one loop over …/upstreams/prod and in it one upstream",
    ),
    "brace on its own line": (
        in_production(APP_UPSTREAMS, "{ \n        {{ with", "\n{\n        {{ with"),
        "found were 1 and 0",
    ),
    "on one line": (
        in_production(APP_UPSTREAMS, '"bkapps/upstreams/prod" }}\n', '"bkapps/upstreams/prod" }}'),
        "found were 1 and 0",
    ),
}


@pytest.mark.parametrize("what", EDITED)
def test_a_template_that_was_edited(site: BlueKing, what: str) -> None:
    text, expected = EDITED[what]
    site.write(TEMPLATE, text)
    assert_refused(site, expected)


def test_edits_that_are_not_in_the_way_stay(site: BlueKing) -> None:
    template = APP_UPSTREAMS.replace("{{ range ls", "{{- range ls").replace("# test", "# mine")
    template = in_production(template, "        {{ with", "    keepalive 16;\n        {{ with")
    site.write(TEMPLATE, template)
    assert site.command("apply").code == 0
    assert f"    {LINE}\n    keepalive 16;\n" in site.read(TEMPLATE).decode()
    assert site.command("check").code == 0
    assert site.command("rollback").code == 0
    assert site.read(TEMPLATE).decode() == template


def test_a_package_path_of_the_sites_own(site: BlueKing) -> None:
    """nginx rejects a second one, so the package has switched ours off."""
    site.path(HTTP).rename(site.path(f"{HTTP}.disabled"))
    site.write(f"{CONF}/conf.d/own.conf", 'lua_package_path "/srv/?.lua;;";\n')
    expected = f"another lua_package_path is in the way, in {CONF}/conf.d/own.conf: add {LUA}/?.lua"
    assert_refused(site, expected)
    done = site.command("check")
    assert done.code == 2
    assert f"The package has renamed it to {HTTP}.disabled" in done.said
    # Both in one is the way out.
    own = site.read(f"{HTTP}.disabled").decode().replace(f"{LUA}/?.lua", f"/srv/?.lua;{LUA}/?.lua")
    site.path(f"{HTTP}.disabled").unlink()
    site.write(f"{CONF}/conf.d/own.conf", own)
    assert site.command("apply").code == 0


def test_upstreams_that_are_no_apps(site: BlueKing) -> None:
    """A key of that name, say."""
    site.keys["bkapps/upstreams/prod/OPEN_PAAS2"] = json.dumps(APPOS)
    site.write_keys()
    site.run("systemctl reload-or-restart consul-template")
    assert_refused(site, "upstream OPEN_PAAS2 is no app")


def test_an_upstream_without_servers(site: BlueKing) -> None:
    """nginx rejects it, with and without our line."""
    site.keys["bkapps/upstreams/prod/bk_empty"] = "[]"
    site.write_keys()
    site.run("systemctl reload-or-restart consul-template", check=False)
    before = site.files()
    done = site.command("apply")
    assert done.code == 1
    assert "nginx rejects the configuration as it is, before any change" in done.said
    assert "no servers are inside upstream" in done.said
    assert site.files() == before
    assert "CRITICAL: nginx rejects the configuration: " in site.command("check").said


# --- disks

READ_ONLY = "mount --bind {0} {0}; mount -o remount,bind,ro {0}"
FULL = (
    "cp -a {0} /tmp/filled; mount -t tmpfs -o size=64k tmpfs {0};"
    " cp -a /tmp/filled/. {0}/; rm -rf /tmp/filled;"
    "dd if=/dev/zero of={0}/filling bs=4k 2>/dev/null || :"
)


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("folder", [TEMPLATES, f"{CONF}/conf.d", "/var/lib"])
def test_read_only(site: BlueKing, folder: str, shell: str) -> None:
    expected = "cannot be written" + ("" if folder == "/var/lib" else ": ")
    assert_refused(site, expected, shell, READ_ONLY.format(folder))


@pytest.mark.parametrize("folder", [TEMPLATES, f"{CONF}/conf.d"])
def test_full(site: BlueKing, folder: str) -> None:
    assert_refused(site, f"{folder} cannot be written: ", before=FULL.format(folder))


def test_no_space_for_the_backup(site: BlueKing) -> None:
    site.path(STATE).mkdir(parents=True)
    assert_refused(site, f"{STATE} has no space", before=FULL.format(STATE))


# --- gateways in another state


@pytest.mark.parametrize("shell", SHELLS)
def test_nginx_does_not_run(site: BlueKing, shell: str) -> None:
    site.command("apply")
    ours = site.files()
    site.run(f"{PREFIX}/sbin/nginx -s stop")
    wait_for(lambda: not site.path(f"{PREFIX}/logs/nginx.pid").exists(), "nginx to end")
    done = site.command("check", shell)
    assert done.code == 2 and done.said.startswith("CRITICAL: nginx does not run")
    done = site.command("rollback", shell)
    assert done.code == 0, done.said
    assert "nginx does not run, so nothing was reloaded." in done.said
    stock = site.files()
    assert stock != ours and stock[0].decode() == APP_UPSTREAMS
    done = site.command("apply", shell)
    assert done.code == 1
    assert "refused: nginx does not run: start it first" in done.said
    assert site.files() == stock


def test_a_broken_configuration(site: BlueKing) -> None:
    """apply touches nothing; rollback neither, as nginx could not be reloaded."""
    site.command("apply")
    site.write(f"{CONF}/conf.d/broken.conf", "nonsense;\n")
    before = site.files()
    for command, code in (("apply", 1), ("plan", 1), ("rollback", 1), ("check", 2)):
        done = site.command(command)
        assert done.code == code, (command, done.said)
        assert f'unknown directive "nonsense" in {CONF}' in done.said.replace(
            f"{STATE}/work/conf", CONF
        )
        assert site.files() == before
    assert_users_are_served(site)


@pytest.mark.parametrize("shell", SHELLS)
def test_without_consul_template(site: BlueKing, shell: str) -> None:
    """A gateway where the upstreams are a file of the operator's."""
    site.run("rm -r /etc/consul-template /usr/local/bin/consul-template")
    before = site.read(RENDERED)
    planned = site.command("plan", shell)
    assert planned.code == 0, planned.said
    assert planned.said.count(f"+    {LINE}") == 2
    assert site.command("apply", shell).code == 0
    assert lines_of_ours(site.read(RENDERED)) == 2
    assert site.command("check", shell).code == 0
    assert site.command("rollback", shell).code == 0
    assert site.read(RENDERED) == before


def test_an_upstream_on_one_line(site: BlueKing) -> None:
    site.run("rm -r /etc/consul-template /usr/local/bin/consul-template")
    site.write(
        RENDERED,
        f"upstream bk_iam {{ server {APPOS[0]}; }}\nupstream bk_sops {{\nserver {APPOS[0]}; }}",
    )
    done = site.command("plan")
    assert done.code == 1
    assert 'refused: upstream bk_iam has no lines "upstream bk_iam {" and "}"' in done.said


def test_consul_template_is_not_on_this_host(site: BlueKing) -> None:
    """In a container, say: the template is edited, and so is the rendered file."""
    site.run("rm /usr/local/bin/consul-template")
    before = site.files()
    done = site.command("apply")
    assert done.code == 0
    assert "consul-template is not here, so the rendered file is edited as well" in done.said
    assert [lines_of_ours(each) for each in site.files()] == [1, 2]
    assert site.command("rollback").code == 0
    assert site.files() == before


@pytest.mark.parametrize("shell", SHELLS)
def test_consul_cannot_be_read(site: BlueKing, shell: str) -> None:
    """consul-template fails, or renders as if there were no apps: the rendered file keeps them."""
    before = site.files()
    for keys, expected in (("nonsense", "consul-template failed ("), ("{}", "would change more")):
        site.run("cp /etc/consul-keys.json /etc/keys")
        site.write("/etc/consul-keys.json", keys)
        done = site.command("plan", shell)
        assert done.code == 0 and expected in done.said, done.said
        assert done.said.count(f"+    {LINE}") == 3
        assert "\n-" not in done.said.replace("\n---", "")
        site.run("mv /etc/keys /etc/consul-keys.json")
    assert site.files() == before


@pytest.mark.parametrize("shell", SHELLS)
def test_links(site: BlueKing, shell: str) -> None:
    """Files that are links stay links; what they lead to is changed, with its owner and mode."""
    site.run(
        f"mkdir /srv; mv {TEMPLATE} /srv/template; ln -s /srv/template {TEMPLATE};"
        f"mv {CONF}/conf.d /srv/conf.d; ln -s /srv/conf.d {CONF}/conf.d;"
        f"chown 12:34 /srv/template; chmod 640 /srv/template"
    )
    before = site.run("cat /srv/template /srv/conf.d/app_upstream.conf")
    done = site.command("apply", shell)
    assert done.code == 0, done.said
    assert site.run(
        f"stat -c '%u %g %a' /srv/template; readlink {TEMPLATE} {CONF}/conf.d"
    ).split() == [*("12", "34", "640", "/srv/template", "/srv/conf.d")]
    assert site.run("cat /srv/template /srv/conf.d/app_upstream.conf").count(LINE) == 3
    assert site.command("check", shell).code == 0
    assert site.command("rollback", shell).code == 0
    assert site.run("cat /srv/template /srv/conf.d/app_upstream.conf") == before
    site.run("rm /srv/template")
    assert f"{TEMPLATE}" in site.command("plan", shell).said
    assert site.command("plan", shell).code == 1


@pytest.mark.parametrize("shell", SHELLS)
def test_files_of_windows(site: BlueKing, shell: str) -> None:
    """Lines that end in CR LF: ours does so as well."""
    site.write(TEMPLATE, APP_UPSTREAMS.replace("\n", "\r\n"))
    site.run("systemctl reload-or-restart consul-template")
    before = site.files()
    assert site.command("apply", shell).code == 0
    template, rendered = site.files()
    for each, count in ((template, 1), (rendered, 2)):
        assert each.count(f"{LINE}\r\n".encode()) == count
        assert each.count(b"\r\n") == each.count(b"\n")
    assert site.command("check", shell).code == 0
    assert site.command("rollback", shell).code == 0
    assert site.files() == before


def test_other_paths(site: BlueKing) -> None:
    """nginx.conf, behind a link, includes by full names; templates and nginx are elsewhere."""
    site.run(
        f"sed -i 's#include conf.d#include {CONF}/conf.d#' {CONF}/nginx.conf; mkdir /opt /srv;"
        f"ln -s {CONF} /srv/conf; mv /etc/consul-template /opt/; mv {PREFIX}/sbin/nginx /opt/nginx;"
        "sed -i 's#/etc/consul-template#/opt/consul-template#' /opt/consul-template/conf.d/*"
    )
    templates = "/opt/consul-template/templates"
    options = f"--conf /srv/conf/nginx.conf --templates {templates}/ --nginx /opt/nginx"
    done = site.command(f"apply {options}")
    assert done.code == 0, done.said
    assert lines_of_ours(site.read(RENDERED)) == 2
    assert lines_of_ours(site.read(f"{templates}/app_upstream.conf.tpl")) == 1
    done = site.command(f"check {options}")
    assert done.code == 0, done.said
    assert site.command(f"rollback {options}").code == 0


AWKWARD = """log_format odd '$remote_addr - "$request" {'
    ' ; } $status';
map $http_upgrade $odd_upgrade { default "}"; '' close; }
server {
    listen 127.0.0.1:81;
    server_name "odd.example.com" "~^x{2,3}$";
    location / { content_by_lua_block { -- } here and "there
        local text = "}" .. '{{' -- }}
        if text then ngx.say("{", text) end
    } }
    set $odd "${host}-}"; # } no more
}
"""


@pytest.mark.parametrize("shell", SHELLS)
def test_configurations_that_are_awkward_to_read(site: BlueKing, shell: str) -> None:
    site.write(f"{CONF}/conf.d/a_odd.conf", AWKWARD)
    assert site.command("apply", shell).code == 0
    done = site.command("check", shell)
    assert done.code == 0, done.said
    assert "upstreams: 2 of 2 apps have the line" in done.said


# --- check


def test_files_that_nginx_may_not_read(site: BlueKing) -> None:
    """Files copied under umask 077, on a gateway whose workers are not root."""
    site.command("apply")
    conf = site.read(f"{CONF}/nginx.conf").decode()
    site.write(f"{CONF}/nginx.conf", conf.replace("user root;", "user nobody nogroup;"))
    site.run("chmod 755 / && chmod 711 /root")
    for shell in SHELLS:
        site.run(f"chmod 644 {LUA}/container_healthcheck.lua")
        assert site.command("check", shell).code == 0, site.command("check", shell).said
        site.run(f"chmod 600 {LUA}/container_healthcheck.lua")
        done = site.command("check", shell)
        assert done.code == 2
        assert (
            f"CRITICAL: nginx's user nobody may not read {LUA}/container_healthcheck.lua"
            in done.said
        )


def test_files_of_two_versions(site: BlueKing) -> None:
    site.command("apply")
    text = site.read(f"{LUA}/container_healthcheck.lua").decode()
    head, _, rest = text.partition("\n")
    site.write(f"{LUA}/container_healthcheck.lua", f"-- container-healthcheck 1.2.3: old\n{rest}")
    done = site.command("check")
    assert head and done.code == 2
    assert "are of several versions (1.2.3 " in done.said


def test_files_that_are_missing(site: BlueKing) -> None:
    site.command("apply")
    site.path(f"{LUA}/container_healthcheck.lua").unlink()
    done = site.command("check")
    assert (done.code, done.said.splitlines()[0]) == (
        2,
        f"CRITICAL: {LUA}/container_healthcheck.lua is missing: install the package again",
    )
    site.path(f"{CONF}/container-healthcheck-upstream.conf").unlink()
    expected = f"{CONF}/container-healthcheck-upstream.conf is missing: install the package again"
    assert_refused(site, expected)


def test_servers_that_do_not_answer(site: BlueKing) -> None:
    """An APPO server's port means that it should; another server is none."""
    site.keys["bkapps/upstreams/prod/views"] = json.dumps([NOT_APPO, f"{APPOS[1]} backup"])
    site.write_keys()
    site.run("systemctl reload-or-restart consul-template")
    site.command("apply")
    for shell in SHELLS:
        done = site.command("check", shell)
        assert done.code == 0, done.said
        assert f"server {NOT_APPO}: not on port 8010, taken for no APPO server" in done.said
    site.keys["bkapps/upstreams/prod/bk_sops"] = json.dumps([APPOS[0], "127.0.6.9:8010"])
    site.write_keys()
    site.run("systemctl reload-or-restart consul-template")
    done = site.command("check")
    assert done.code == 1
    assert done.said.startswith(
        "WARNING: APPO server 127.0.6.9:8010 does not answer as container-health"
    )
    for app in (*APPS, "views"):
        site.keys[f"bkapps/upstreams/prod/{app}"] = json.dumps(["127.0.6.9:8010"])
    site.write_keys()
    site.run("systemctl reload-or-restart consul-template")
    done = site.command("check")
    assert done.code == 2 and "no APPO server answers" in done.said


def test_it_needs_root(site: BlueKing) -> None:
    user = "setpriv --reuid 65534 --regid 65534 --clear-groups dash"
    done = site.command("check", user, before="chmod 755 / /root")
    assert (done.code, done.said) == (3, "UNKNOWN: run this as root")
    done = site.command("apply", user)
    assert (done.code, done.said) == (
        1,
        "container-healthcheck-gateway: refused: run this as root",
    )


WRONG = {
    "": "check, plan, apply or rollback?",
    "chekc": "unknown command chekc",
    "check --cnof x": "unknown option --cnof",
    "apply --conf": "--conf wants a value",
    "apply rollback": "one command at a time",
}


@pytest.mark.parametrize("shell", SHELLS)
def test_mistakes(site: BlueKing, shell: str) -> None:
    for arguments, expected in WRONG.items():
        done = site.command(arguments, shell)
        assert done.code == 3 and f"container-healthcheck-gateway: {expected}" in done.said
    helped = site.command("--help", shell)
    assert helped.code == 0 and helped.said.startswith(
        "Usage: container-healthcheck-gateway check | "
    )
    done = site.command("check --nginx /no/nginx", shell)
    assert (done.code, done.said) == (3, "UNKNOWN: there is no /no/nginx: name it with --nginx")
