"""A life of two APPO servers and a gateway, which a real Prometheus watches.

Every time span of the configuration and the rules is shortened alike: a minute is `MINUTE` seconds.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys

from sandbox.gateway import GATEWAY_PORT, PACKAGING, AppoServer, Client, Gateway
from sandbox.prometheus import Prometheus
from sandbox.running_service import SOURCE
from sandbox.waiting import wait_for, wait_until
from tests.gateway.made_up import MadeUp, Verdicts
from tests.readme import chapter, fenced

# Long enough for a machine that is busy with something else: a scrape a second.
MINUTE = 4.0
PATIENT = {"docker_timeout": 3, "stale_after": 6, "probe_timeout": 5}
DEAD, DRAINED, DEPLOYED, FLAPPING = "bk_iam", "bk_sops", "bk_job", "bk_flow"
APPS = (DEAD, DRAINED, DEPLOYED, FLAPPING)
FIRST, SECOND = "127.0.0.1:8010", "127.0.0.2:8010"
# A server that the gateway has been told of, and Prometheus has not.
THIRD = "127.0.0.3:8010"
GATEWAY = "127.0.0.1:8079"

Alert = tuple[str, ...]


def port_for_the_page() -> str:
    """The chapter's server block, on this gateway."""
    (block,) = (
        text for kind, text in fenced(chapter("en", "alerts.md").read_text()) if kind == "nginx"
    )
    installed = PACKAGING / "openresty" / "status.conf"
    return block.replace("10.0.0.9", "127.0.0.1").replace(
        "container-healthcheck-status.conf", str(installed)
    )


class Life:
    """It is lived once; what came of it is asked of its `prometheus`."""

    def __init__(self, release: str) -> None:
        self._stack = contextlib.ExitStack()
        self.prometheus = Prometheus(
            release,
            {"container-healthcheck": [FIRST, SECOND], "container-healthcheck-gateway": [GATEWAY]},
            minute=MINUTE,
        )
        self.first = AppoServer("127.0.0.1", **PATIENT)
        self.second = AppoServer("127.0.0.2", **PATIENT)
        self.annotations: dict[Alert, dict[str, str]] = {}

    def __enter__(self) -> Life:
        with self._stack:
            for each in (self.first, self.second, self.prometheus):
                self._stack.enter_context(each)
            self.gateway = self._stack.enter_context(
                Gateway([FIRST, SECOND, THIRD], include=port_for_the_page())
            )
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def is_lived(self) -> None:
        """All of it, in a minute or so."""
        self._begins()
        self._an_app_dies_on_one_server()
        self._and_on_the_other()
        self._dockerd_freezes()
        self._a_service_hangs()
        self._await_apps_up(2 * len(APPS) - 1)

    def _begins(self) -> None:
        for server in (self.first, self.second):
            for app_code in APPS:
                server.deploy(app_code, wait=False)
        for server in (self.first, self.second):
            for app_code in APPS:
                server.await_app(app_code)
        for app_code in APPS:
            assert self.gateway.get(f"/o/{app_code}/").status == 200
        self._stack.enter_context(Client(f"http://127.0.0.1:{GATEWAY_PORT}/o/{DEAD}/", rate=10))
        self._await_apps_up(2 * len(APPS))

    def _an_app_dies_on_one_server(self) -> None:
        # Its container goes on.
        self.first.kill_app(DEAD)
        self._what_is_no_trouble()
        self._an_app_flaps()
        self._await_alert(("AppDown", FIRST, DEAD))
        self._await_alert(("GatewayHearsNothing", GATEWAY, THIRD))
        self._stack.enter_context(MadeUp("127.0.0.3", Verdicts({})))
        self._await_end("GatewayHearsNothing")

    def _what_is_no_trouble(self) -> None:
        drain = [sys.executable, "-m", "container_healthcheck", "drain", DRAINED]
        environment = self.first.service.environment
        subprocess.run(drain, cwd=SOURCE, env=environment, check=True, stdout=subprocess.DEVNULL)
        self.second.deploy(DEPLOYED, slow=1)
        self.second.await_app(DEPLOYED)
        self.second.containers(DEPLOYED)[0].remove(force=True)
        worker, *_ = self.second.service.workers()
        os.kill(worker, signal.SIGKILL)
        self.gateway.reload()
        wait_for(lambda: worker not in self.second.service.workers(), "the worker to be gone")

    def _an_app_flaps(self) -> None:
        (container,) = self.second.containers(FLAPPING)
        # As often as it takes, and not quicker than the service notices.
        for _ in range(50):
            container.pause()
            self.second.service.settle(FLAPPING, 13)
            container.unpause()
            self.second.service.settle(FLAPPING, 0)
            if ("AppFlaps", SECOND, FLAPPING) in self._firing():
                break

    def _and_on_the_other(self) -> None:
        self.second.containers(DEAD)[0].kill()
        self._await_alert(("AppServedNowhere", DEAD))
        self._await_end("AppDown")
        for server in (self.first, self.second):
            server.containers(DEAD)[0].restart(timeout=0)
        for server in (self.first, self.second):
            server.await_app(DEAD)
        self._await_end("AppServedNowhere")

    def _dockerd_freezes(self) -> None:
        self.first.engine.signal(signal.SIGSTOP)
        self._await_alert(("DockerNotAnswering", FIRST))
        self.first.engine.signal(signal.SIGCONT)
        self._await_end("DockerNotAnswering")

    def _a_service_hangs(self) -> None:
        self.second.signal_service(signal.SIGSTOP)
        self._await_alert(("NotScraped", SECOND))
        self.second.signal_service(signal.SIGCONT)
        self._await_end("NotScraped")

    def _await_apps_up(self, number: int) -> None:
        up = f"sum(app_code:container_healthcheck_servers_up:sum) == {number}"
        wait_for(lambda: self.prometheus.query(up), f"Prometheus to see {number} apps up")

    def _await_alert(self, alert: Alert) -> None:
        wait_until(self._firing, lambda firing: alert in firing, f"{alert} to fire", limit=120)

    def _await_end(self, name: str) -> None:
        wait_until(
            self._firing,
            lambda firing: name not in {each[0] for each in firing},
            f"{name} to end",
            limit=120,
        )

    def _firing(self) -> set[Alert]:
        found = self.prometheus.firing()
        self.annotations.update(found)
        return {*found}
