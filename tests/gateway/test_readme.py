"""The chapter on the gateway, followed step by step on a gateway with those paths."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from sandbox.gateway import PACKAGING, AppoServer
from sandbox.running_service import Answer, ask
from sandbox.waiting import wait_until
from tests.gateway.openresty import INTERNAL, PREFIX, PUBLIC, TEMPLATE, OpenResty
from tests.readme import LANGUAGES, chapter, commands, fenced, section

CHAPTER = "gateway.md"
COMMAND = {"en": "The command", "zh": "命令"}
APPS = ("bk_iam", "bk_sops")
LOG_TIME = re.compile(r"^[\d/]{10} [\d:]{8} \[error\] \d+#\d+: \*\d+ ", re.MULTILINE)


@pytest.fixture
def gateway(appos: list[AppoServer]) -> Iterator[OpenResty]:
    """A gateway that serves the stock way, and the two apps of the chapter."""
    for server in appos:
        for app_code in APPS:
            server.deploy(app_code)
    with OpenResty() as gateway:
        yield gateway


def comparable(text: str) -> list[object]:
    """The lines, without times and numbers of processes; the log's and JSON's order is free."""
    lines = LOG_TIME.sub("TIME ", text).splitlines()
    return sorted(map(_as_json, lines), key=str)


def _as_json(line: str) -> object:
    try:
        return json.loads(line)
    except ValueError:
        return line


def directives(text: str) -> list[str]:
    """The lines of a configuration, without comments."""
    lines = (line.partition("#")[0].rstrip() for line in text.splitlines())
    return [line for line in lines if line]


def with_the_location(template: str, shown: str) -> str:
    """The template with its locations changed as shown, where a line stands for all the others."""
    found = re.search(r"    location ~ \^/o/.*?\n    \}\n", template, re.DOTALL)
    assert found and template.count(found.group()) == 2
    stay = [line for line in found.group().splitlines()[1:-1] if not re.search("\\$app\\b", line)]
    changed = re.sub(r"    # ….*", "\n".join(stay), shown)
    assert changed != shown
    return template.replace(found.group(), changed)


def follow(block: str, gateway: OpenResty, appos: list[AppoServer]) -> None:
    """Runs the examples of a block, from its first on until all of them print what is shown.

    Just after a reload an old worker may still answer, and the log comes a moment later.
    """
    shown = [(command, comparable(printed)) for command, printed in commands(block)]

    def printed() -> list[tuple[str, list[object]]]:
        says = [gateway.run(each, check=False, LAN_IP=appos[0].address) for each, _ in shown]
        return [(each, comparable(said)) for (each, _), said in zip(shown, says, strict=True)]

    command, at_once = shown[0]
    if "seq 20" in command:
        # What the text before it says: stop the container of one app on one server.
        appos[0].containers("bk_iam")[-1].stop(timeout=1)
        assert comparable(gateway.run(command)) == at_once
    wait_until(printed, shown.__eq__, block)


def get(path: str, name: str = PUBLIC) -> Answer:
    """What the gateway answers to a user, or to a backend."""
    return ask(80, path, headers={"Host": name})


def status_of(path: str, name: str = PUBLIC) -> int:
    """The same, as far as the status goes."""
    return get(path, name).status


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_chapter(language: str, gateway: OpenResty, appos: list[AppoServer]) -> None:
    configurations = []
    text = chapter(language, CHAPTER).read_text()
    # What the command does is followed in test_command.py.
    for kind, block in fenced(text.replace(section(text, COMMAND[language]), "")):
        if kind == "sh":
            gateway.run(block)
        elif kind == "console":
            follow(block, gateway, appos)
        else:
            configurations.append(block)
        if kind == "nginx" and len(configurations) == 2:
            template = gateway.path(TEMPLATE)
            template.write_text(with_the_location(template.read_text(), block))

    # It has gone back entirely.
    for name in (PUBLIC, INTERNAL):
        wait_until(lambda: status_of("/o/bk_iam/", name), (200).__eq__, "the stock way")  # noqa: B023
    assert "health" not in gateway.run(f"ls -R {PREFIX}")
    assert "target_up" not in gateway.run(f"cat {PREFIX}/conf/conf.d/*")

    appo, gateways = map(directives, configurations)
    assert appo == directives((PACKAGING / "nginx" / "appo-location.conf").read_text())
    location = (PACKAGING / "openresty" / "location.conf").read_text()
    marked = [line for line in location.splitlines() if re.search(r"# (added|was)", line)]
    assert gateways[-1] == "include container-healthcheck-status.conf;"
    assert set(directives("\n".join(marked))) < set(gateways[:-1]) < set(directives(location))


@pytest.fixture
def set_up(gateway: OpenResty) -> OpenResty:
    """The gateway after the chapter's steps 2 and 3, as far as they change it."""
    blocks = fenced(chapter("en", CHAPTER).read_text())
    gateway.run(next(block for kind, block in blocks if kind == "sh" and "cp -r lua" in block))
    shown = next(block for kind, block in blocks if kind == "nginx" and "target_up" in block)
    template = gateway.path(TEMPLATE)
    template.write_text(with_the_location(template.read_text(), shown))
    return gateway


def await_status(gateway: OpenResty, path: str, status: int) -> None:
    """Restarts consul-template, and waits until the gateway answers so."""
    gateway.run("systemctl restart consul-template")
    wait_until(lambda: status_of(path), status.__eq__, f"status {status}")


def test_going_back_at_once(set_up: OpenResty) -> None:
    """With the other lines left, and only the old `proxy_pass` again."""
    await_status(set_up, "/container-healthcheck-gateway", 200)
    template = set_up.path(TEMPLATE)
    # The mark tells an answer of the new workers from one of the old.
    back = r"\1app; add_header Way stock;"
    text, count = re.subn(r"(proxy_pass http://\$)target_up;.*", back, template.read_text())
    assert count == 2
    template.write_text(text)
    set_up.run("systemctl restart consul-template")
    answer = wait_until(
        lambda: get("/o/bk_iam/"), lambda answer: "Way" in answer.headers, "the new way"
    )
    assert answer.status == 200


def test_the_entry_file_is_missing(set_up: OpenResty) -> None:
    set_up.path(f"{PREFIX}/lua/container-healthcheck/apps_balancer.lua").unlink()
    await_status(set_up, "/o/bk_iam/", 404)
    assert "failed to load external Lua file" in set_up.path(f"{PREFIX}/logs/error.log").read_text()


def test_the_site_has_a_package_path_already(set_up: OpenResty) -> None:
    set_up.path(f"{PREFIX}/conf/conf.d/own.conf").write_text('lua_package_path "/srv/?.lua;;";')
    said = set_up.run(f"{PREFIX}/sbin/nginx -t", check=False)
    assert '"lua_package_path" directive is duplicate' in said


def test_a_request_without_a_name_gets_nothing(set_up: OpenResty) -> None:
    """As the table says: BlueKing's default_server hangs up."""
    said = set_up.run("curl -sS http://127.0.0.1/container-healthcheck-gateway", check=False)
    assert "Empty reply from server" in said


def test_only_one_location_was_changed(set_up: OpenResty) -> None:
    """The other one goes the stock way, as before."""
    template = set_up.path(TEMPLATE)
    text = template.read_text()
    template.write_text(text.replace("proxy_pass http://$target_up;", "proxy_pass http://$app;", 1))
    await_status(set_up, "/container-healthcheck-gateway", 200)
    assert {status_of("/o/bk_iam/", name) for name in (PUBLIC, INTERNAL)} == {200}
