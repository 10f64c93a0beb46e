"""A life of two APPO servers and a gateway, which a real Prometheus watches."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys

from sandbox.gateway import GATEWAY_PORT, AppoServer, Client, Gateway
from sandbox.prometheus import Prometheus
from sandbox.running_service import SOURCE
from sandbox.waiting import wait_for, wait_until
from tests.gateway.made_up import MadeUp, Verdicts

# In seconds. Three are long enough for a busy machine, and short enough for a day's patience.
MINUTE = 3.0
DEAD, DRAINED, DEPLOYED, FLAPPING = "bk_iam", "bk_sops", "bk_job", "bk_flow"
APPS = (DEAD, DRAINED, DEPLOYED, FLAPPING)
FIRST, SECOND = "127.0.0.1:8010", "127.0.0.2:8010"
# A server that the gateway has been told of, and Prometheus has not.
THIRD = "127.0.0.3:8010"
GATEWAY = f"127.0.0.1:{GATEWAY_PORT}"

Alert = tuple[str, ...]


class Life:
    """It is lived once; what came of it is asked of its `prometheus`."""

    def __init__(self, release: str) -> None:
        self._stack = contextlib.ExitStack()
        self.prometheus = Prometheus(
            release,
            {"container-healthcheck": [FIRST, SECOND], "container-healthcheck-gateway": [GATEWAY]},
            minute=MINUTE,
        )
        self.first = AppoServer("127.0.0.1")
        self.second = AppoServer("127.0.0.2")
        self.annotations: dict[Alert, dict[str, str]] = {}

    def __enter__(self) -> Life:
        with self._stack:
            for each in (self.first, self.second, self.prometheus):
                self._stack.enter_context(each)
            self.gateway = self._stack.enter_context(Gateway([FIRST, SECOND, THIRD]))
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
        self._stack.enter_context(Client(f"http://{GATEWAY}/o/{DEAD}/", rate=10))
        self._await_apps_up(2 * len(APPS))

    def _an_app_dies_on_one_server(self) -> None:
        # Its container goes on.
        self.first.kill_app(DEAD)
        self._what_is_no_trouble()
        self._an_app_flaps()
        unheard = ("GatewayHearsNothing", GATEWAY, THIRD)
        self._await_firing(
            {("AppDown", FIRST, DEAD), ("AppFlaps", SECOND, FLAPPING), unheard},
        )
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
        for _ in range(5):
            container.pause()
            self.second.service.settle(FLAPPING, 13)
            container.unpause()
            self.second.service.settle(FLAPPING, 0)

    def _and_on_the_other(self) -> None:
        self.second.containers(DEAD)[0].kill()
        flaps = ("AppFlaps", SECOND, FLAPPING)
        self._await_firing({("AppServedNowhere", DEAD), flaps})
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

    def _await_firing(self, alerts: set[Alert]) -> None:
        wait_until(self._firing, alerts.__eq__, f"{alerts} to fire", limit=120)

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
