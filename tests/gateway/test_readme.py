"""The chapter on the gateway, followed step by step on a gateway with those paths."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from sandbox.gateway import PACKAGING, AppoServer
from sandbox.running_service import Answer, ask
from sandbox.waiting import wait_until
from tests.gateway.openresty import (
    APP_TEMPLATE,
    INTERNAL,
    LOGS,
    PREFIX,
    PUBLIC,
    TEMPLATE,
    OpenResty,
)
from tests.readme import LANGUAGES, chapter, commands, fenced, section

pytestmark = pytest.mark.slow

CHAPTER = "gateway.md"
COMMAND = {"en": "The command", "zh": "命令"}
APPS = ("bk_iam", "bk_sops")
LOG_TIME = re.compile(r"^[\d/]{10} [\d:]{8} \[error\] \d+#\d+: \*\d+ ", re.MULTILINE)


@pytest.fixture
def gateway(appos: list[AppoServer]) -> Iterator[OpenResty]:
    """A gateway that routes as without the module, and the two apps of the chapter."""
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


def with_the_line(template: str, shown: str) -> str:
    """The template with its production loop changed as shown."""
    head, _, rest = shown.partition("    # …")
    before, found, after = template.partition(head)
    assert found, template
    (line,) = re.findall(r"^ +balancer_by_lua_block .*\n", rest, re.MULTILINE)
    servers, end, after = after.partition("}\n{{ end }}")
    assert end, template
    return f"{before}{found}{servers}{line}{end}{after}"


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


def shown(language: str, text: str) -> str:
    """The configuration in the chapter that has this text in it."""
    blocks = fenced(chapter(language, CHAPTER).read_text())
    (found,) = [block for kind, block in blocks if kind == "nginx" and text in block]
    return found


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_chapter(language: str, gateway: OpenResty, appos: list[AppoServer]) -> None:
    template = gateway.path(APP_TEMPLATE)
    text = chapter(language, CHAPTER).read_text()
    # What the command does is followed in test_command.py.
    for kind, block in fenced(text.replace(section(text, COMMAND[language]), "")):
        if kind == "sh":
            gateway.run(block)
        elif kind == "console":
            follow(block, gateway, appos)
        elif "range ls" in block:
            template.write_text(with_the_line(template.read_text(), block))

    # It has gone back entirely.
    for name in (PUBLIC, INTERNAL):
        wait_until(lambda: status_of("/o/bk_iam/", name), (200).__eq__, "stock routing")  # noqa: B023
    assert "health" not in gateway.run(f"ls -R {PREFIX}")
    assert "health" not in gateway.run(f"cat {PREFIX}/conf/conf.d/*")


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_configurations_are_those_of_the_package(language: str) -> None:
    appo = directives(shown(language, "location /container-healthcheck "))
    assert appo == directives((PACKAGING / "nginx" / "appo-location.conf").read_text())
    location = (PACKAGING / "openresty" / "location.conf").read_text()
    marked = [line for line in location.splitlines() if re.search(r"# (added|was)", line)]
    of_chapter = set(directives(shown(language, "$target_up")))
    assert set(directives("\n".join(marked))) < of_chapter < set(directives(location))
    upstream = (PACKAGING / "openresty" / "upstream.conf").read_text()
    (line,) = directives(upstream)
    assert f"    {line}" in directives(shown(language, "range ls"))
    assert f"# observe: {shown(language, 'observe()').strip()}" in upstream.splitlines()


@pytest.fixture
def ready(gateway: OpenResty) -> OpenResty:
    """The gateway after the chapter's step 2, and with the page on its port."""
    blocks = fenced(chapter("en", CHAPTER).read_text())
    gateway.run(next(block for kind, block in blocks if kind == "sh" and "cp -r lua" in block))
    gateway.run(next(block for kind, block in blocks if kind == "sh" and "listen 127" in block))
    return gateway


@pytest.fixture
def in_the_location(ready: OpenResty) -> OpenResty:
    """The same with the Lua in both locations."""
    template = ready.path(TEMPLATE)
    template.write_text(with_the_location(template.read_text(), shown("en", "$target_up")))
    ready.run("systemctl restart consul-template")
    return ready


def requests_counted(name: str) -> int:
    """How many requests for bk_iam the gateway has counted, after one more by that name."""
    assert status_of("/o/bk_iam/", name) == 200
    text = ask(8079, "/container-healthcheck-gateway?format=prometheus").body.decode()
    found = re.findall(r'requests_total\{app_code="bk_iam",choice="\w+"\} (\d+)', text)
    return sum(map(int, found))


def await_counted(name: str) -> None:
    before = requests_counted(name)
    wait_until(lambda: requests_counted(name), lambda now: now > before, f"{name} to be counted")


def test_in_the_location(in_the_location: OpenResty) -> None:
    """Both names are covered; with the old `proxy_pass` again, requests go as before."""
    for name in (PUBLIC, INTERNAL):
        await_counted(name)
    template = in_the_location.path(TEMPLATE)
    # The mark tells an answer of the new workers from one of the old.
    back = r"\1app; add_header Way stock;"
    text, count = re.subn(r"(proxy_pass http://\$)target_up;.*", back, template.read_text())
    assert count == 2
    template.write_text(text)
    in_the_location.run("systemctl restart consul-template")
    answer = wait_until(
        lambda: get("/o/bk_iam/"), lambda answer: "Way" in answer.headers, "the new way"
    )
    assert answer.status == 200


def test_the_files_are_gone(in_the_location: OpenResty) -> None:
    """Users notice nothing, and the log says what is wrong."""
    in_the_location.run(f"rm -r {PREFIX}/lua && systemctl restart consul-template")
    log = in_the_location.path(f"{LOGS}/error.log")
    wait_until(log.read_text, lambda text: "falling back to stock routing" in text, "the log")
    for name in (PUBLIC, INTERNAL):
        assert status_of("/o/bk_iam/", name) == 200


def test_the_site_has_a_package_path_already(ready: OpenResty) -> None:
    ready.path(f"{PREFIX}/conf/conf.d/own.conf").write_text('lua_package_path "/srv/?.lua;;";')
    said = ready.run(f"{PREFIX}/sbin/nginx -t", check=False)
    assert '"lua_package_path" directive is duplicate' in said


def test_a_request_without_a_name_gets_nothing(ready: OpenResty) -> None:
    """As the table says: BlueKing's default_server hangs up."""
    said = ready.run("curl -sS http://127.0.0.1/container-healthcheck-gateway", check=False)
    assert "Empty reply from server" in said


def test_only_one_location_was_changed(in_the_location: OpenResty) -> None:
    """Requests of the other one are routed as before."""
    template = in_the_location.path(TEMPLATE)
    text = template.read_text()
    template.write_text(text.replace("proxy_pass http://$target_up;", "proxy_pass http://$app;", 1))
    in_the_location.run("systemctl restart consul-template")
    await_counted(INTERNAL)
    assert {status_of("/o/bk_iam/", name) for name in (PUBLIC, INTERNAL)} == {200}
