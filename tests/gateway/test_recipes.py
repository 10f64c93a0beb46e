"""The recipes for other gateways, each with the real program where Debian has it."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.gateway import GATEWAY_PORT, PACKAGING, AppoServer, traffic
from sandbox.nginx import Nginx
from sandbox.service import ask
from sandbox.waiting import LIMIT, wait_for
from tests.gateway.conftest import missing


def filled_in(recipe: str, app: str, appos: list[AppoServer]) -> str:
    """A recipe with this app and these servers."""
    text = (PACKAGING / recipe).read_text().replace("bk_iam", app)
    for number, server in enumerate(appos, 1):
        text = text.replace(f"10.0.0.{number}:8010", server.name)
    return text


def served_by(app: str, times: int = 20) -> set[str]:
    """Which servers answer GETs; a failure counts as its status."""
    answers = [ask(GATEWAY_PORT, f"/o/{app}/") for _ in range(times)]
    return {
        re.sub("-.*", "", answer.json["name"]) if answer.status == 200 else str(answer.status)
        for answer in answers
    }


def port_is_open() -> bool:
    with contextlib.suppress(OSError):
        ask(GATEWAY_PORT, "/")
        return True
    return False


@pytest.fixture
def haproxy(appos: list[AppoServer], app: str, tmp_path: Path) -> Iterator[None]:
    """HAProxy with the recipe."""
    if not shutil.which("haproxy"):
        missing("haproxy")
    configuration = tmp_path / "haproxy.cfg"
    configuration.write_text(filled_in("haproxy/container-healthcheck.cfg", app, appos))
    checked = subprocess.run(["haproxy", "-c", "-f", configuration], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    process = subprocess.Popen(
        ["haproxy", "-f", configuration], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_for(port_is_open, "haproxy to listen")
    yield
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=LIMIT)


def test_haproxy(haproxy: None, appos: list[AppoServer], app: str) -> None:
    """No GET fails when a container dies; a server is back when the app is; both down: 502."""
    first, second = appos
    assert served_by(app) == {first.address, second.address}
    with traffic(f"http://127.0.0.1:{GATEWAY_PORT}/o/{app}/") as client:
        first.containers(app)[0].kill()
        wait_for(lambda: served_by(app) == {second.address}, "haproxy to leave the server alone")
        client.goes_on()
        assert not any(each.failed for each in client.finish() if each.method == "GET")
    first.deploy(app)
    wait_for(lambda: served_by(app) == {first.address, second.address}, "its return")
    for server in appos:
        server.containers(app)[-1].kill()
    wait_for(lambda: served_by(app) == {"502"}, "the answer of the servers themselves")
    for server in appos:
        server.kill_service()
    first.deploy(app, wait=False)
    wait_for(lambda: first.serves(app), "the app")
    wait_for(lambda: first.address in served_by(app), "requests though no service answers")


def test_nginx_without_lua(appos: list[AppoServer], app: str) -> None:
    """GETs are tried on the next server; but POSTs fail, and a drained app gets requests."""
    first, second = appos
    with Nginx(filled_in("nginx/plain-gateway.conf", app, appos)):
        assert served_by(app) == {first.address, second.address}
        with traffic(f"http://127.0.0.1:{GATEWAY_PORT}/o/{app}/") as client:
            first.containers(app)[0].kill()
            wait_for(lambda: not first.serves(app), "the app to be gone")
            client.goes_on(100)
            results = client.finish()
        assert not any(each.failed for each in results if each.method == "GET")
        assert served_by(app) == {second.address}
        second.containers(app)[0].kill()
        wait_for(lambda: served_by(app) == {"502"}, "both to be gone")


def test_the_consul_service_definition() -> None:
    """Consul itself is not in Debian: that it is JSON of the right shape, for the right address."""
    definition = json.loads((PACKAGING / "consul" / "container-healthcheck.json").read_text())
    for service in definition["services"]:
        assert service["name"].startswith("appo-") and service["port"] == 8010
        app = service["name"].removeprefix("appo-")
        for check in service["checks"]:
            assert check["http"].endswith(f":4246/container-healthcheck/apps/health/{app}")
            assert check["interval"] and check["timeout"]


def test_the_consul_check_address(appos: list[AppoServer], app: str) -> None:
    """A 2xx passes and a 5xx is critical: what the address of the check answers."""
    definition = (PACKAGING / "consul" / "container-healthcheck.json").read_text()
    found = re.search(r"http://127.0.0.1:(\d+)(/[^\"]*)", definition.replace("bk_iam", app))
    assert found
    assert ask(int(found.group(1)), found.group(2)).status == 200
    appos[0].containers(app)[0].kill()
    wait_for(lambda: ask(int(found.group(1)), found.group(2)).status == 503, "a critical answer")


def test_the_consul_template_is_well_formed() -> None:
    """Every block is closed, every brace pair matches, and nothing but known words is called."""
    text = (PACKAGING / "consul" / "apps.conf.ctmpl").read_text()
    assert text.count("{{") == text.count("}}")
    actions = [each.strip("- \n") for each in re.findall(r"\{\{(.*?)\}\}", text, re.DOTALL)]
    depth = 0
    for action in actions:
        if action.startswith(("range", "if")):
            depth += 1
        elif action == "end":
            depth -= 1
        assert depth >= 0
    assert depth == 0
    words = {word for each in actions if not each.startswith("/*") for word in re.findall(
        r"(?<![.$\w|\"^-])[a-zA-Z]+", re.sub(r'"[^"]*"', "", each))}  # fmt: skip
    known = {"range", "services", "if", "regexMatch", "regexReplaceAll", "service", "else", "end"}
    assert words <= known | {"printf"}
