"""The recipes for other gateways, each with the real program where Debian has it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.gateway import GATEWAY_PORT, PACKAGING, SERVICE_PORT, AppoServer, traffic
from sandbox.kept import kept
from sandbox.nginx import Nginx
from sandbox.running_service import ask
from sandbox.waiting import LIMIT, wait_for, wait_until
from tests.conftest import give_up

pytestmark = pytest.mark.slow


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
        give_up("not installed: haproxy")
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


class Consul:
    """A Consul agent on an APPO server, with the recipe's definition; the one on `leader` leads."""

    def __init__(
        self, program: Path, server: AppoServer, app: str, leader: str, folder: Path
    ) -> None:
        self.address = server.address
        (folder / "conf").mkdir(parents=True)
        definition = (PACKAGING / "consul" / "container-healthcheck.json").read_text()
        (folder / "conf" / "container-healthcheck.json").write_text(
            definition.replace("bk_iam", app).replace("127.0.0.1:4246", f"{self.address}:4246")
        )
        agent = {
            "data_dir": str(folder / "data"),
            "log_file": str(folder / "log"),
            "disable_update_check": True,
            "node_name": self.address,
            "bind_addr": self.address,
            "client_addr": self.address,
            "retry_join": [leader],
            "retry_interval": "1s",
            # Each new text of a check is told at once; left alone, Consul may wait for minutes.
            "check_update_interval": "0s",
        }
        (folder / "conf" / "agent.json").write_text(json.dumps(agent))
        checked = subprocess.run([program, "validate", folder / "conf"], capture_output=True)
        assert checked.returncode == 0, checked.stdout
        mode = ["-dev"] if self.address == leader else []
        self.process = subprocess.Popen(
            [program, "agent", *mode, "-config-dir", str(folder / "conf")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def ask(self, path: str) -> Any:
        """What its HTTP interface answers, or None."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            answer = ask(8500, f"/v1{path}", host=self.address)
            return answer.json if answer.status == 200 else None
        return None


@pytest.fixture
def consul(
    consul_program: Path, appos: list[AppoServer], app: str, tmp_path: Path
) -> Iterator[Consul]:
    """Consul on both APPO servers; the agent on the first."""
    leader = appos[0].address
    agents: list[Consul] = []
    try:
        for server in appos:
            folder = tmp_path / server.address
            agents.append(Consul(consul_program, server, app, leader, folder))
        # Only a cluster that has a leader answers what it is asked.
        wait_for(lambda: agents[0].ask("/status/leader"), "Consul's leader")
        yield agents[0]
    finally:
        for agent in agents:
            agent.process.kill()
            agent.process.wait()


def listed(consul: Consul, app: str, tmp_path: Path) -> tuple[str, list[str]]:
    """The upstream that the recipe makes of what Consul says, and the servers in it.

    The engine of the template is the one that consul-template uses, Go's; its functions `services`
    and `service` are ours.
    """
    known = {
        "services": sorted(consul.ask("/catalog/services") or []),
        "service": {
            f"appo-{app}{suffix}": [
                {
                    "Address": each["Service"]["Address"] or each["Node"]["Address"],
                    "Port": each["Service"]["Port"],
                }
                for each in consul.ask(f"/health/service/appo-{app}{passing}") or []
            ]
            for suffix, passing in (("", "?passing"), ("|any", ""))
        },
    }
    rendered = subprocess.run(
        [tmp_path / "render", PACKAGING / "consul" / "apps.conf.ctmpl"],
        input=json.dumps(known),
        capture_output=True,
        text=True,
    )
    assert rendered.returncode == 0, rendered.stderr
    return rendered.stdout, sorted(re.findall(r"server (\S+) ", rendered.stdout))


def test_consul(consul: Consul, appos: list[AppoServer], app: str, tmp_path: Path) -> None:
    """The upstream lists the servers whose check passes, and all of them when none does."""
    if not shutil.which("go"):
        give_up("not installed: golang-go")
    source = Path(__file__).parent / "consul_template.go"
    subprocess.run(
        ["go", "build", "-o", tmp_path / "render", source],
        check=True,
        env={**os.environ, "GOCACHE": str(kept() / "go")},
    )
    first, second = appos

    def await_servers(*names: str) -> str:
        return wait_until(
            lambda: listed(consul, app, tmp_path), lambda seen: seen[1] == sorted(names), "servers"
        )[0]

    with_both = await_servers(first.name, second.name)
    assert re.findall(r"^upstream (.*) \{$", with_both, re.MULTILINE) == [app]
    with Nginx(with_both):
        pass  # It accepts the file.
    first.containers(app)[0].kill()
    await_servers(second.name)
    second.containers(app)[0].kill()
    await_servers(first.name, second.name)
    second.deploy(app)
    await_servers(second.name)


MINUTE = 60.0


def test_consul_wakes_nobody_while_nothing_changes(
    consul: Consul, appos: list[AppoServer], app: str
) -> None:
    """A young container's status text changes every second; the index of its service does not."""
    first, _ = appos
    path = f"/v1/health/service/appo-{app}"

    def seen() -> tuple[str, list[str]]:
        answer = ask(8500, path, host=consul.address)
        states = [check["Status"] for each in answer.json for check in each["Checks"]]
        return answer.headers["X-Consul-Index"], states

    wait_until(seen, lambda it: len(it[1]) == 4 and set(it[1]) == {"passing"}, "all to pass")
    first.deploy(app)
    # A round of checks, in which the last of what came before may still arrive.
    checked = time.monotonic() + 5
    wait_for(lambda: time.monotonic() > checked, "a round of checks")
    index, _ = seen()
    began = time.monotonic()
    texts = set()
    while time.monotonic() < began + MINUTE:
        found = ask(SERVICE_PORT, f"/container-healthcheck/apps/health/{app}", host=first.address)
        texts.add(found.json["message"]["status"])
        assert seen() == (index, ["passing"] * 4)
        time.sleep(0.2)
    assert len(texts) > 10, texts
