"""What a user sees while something breaks: everything is real, and a client keeps asking.

Each test says in its first line what the client may see.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence

import pytest

from sandbox.gateway import GATEWAY_PORT, STOCK_PORT, AppoServer, Client, Gateway, Result, traffic
from sandbox.running_service import ask
from sandbox.waiting import wait_for

AT_ONCE = 0.2
"""The longest time in which POSTs may fail after a container died, in seconds."""
NEVER_LATER = 5.0
"""The same for a machine that is busy with other things: what is asserted of every attempt."""
ATTEMPTS = 4
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("way")]


def user(app: str) -> str:
    return f"http://127.0.0.1:{GATEWAY_PORT}/o/{app}/"


def failed(results: Sequence[Result], method: str = "") -> list[Result]:
    return [each for each in results if each.failed and each.method in (method or each.method)]


def served_by(results: Sequence[Result], server: AppoServer) -> list[Result]:
    return [each for each in results if f'"{server.address}-' in each.said]


def since(results: Sequence[Result], moment: float) -> list[Result]:
    return [each for each in results if each.start > moment]


def last_failed_post(results: Sequence[Result], moment: float) -> float:
    """How long after the moment the last POST that failed was begun, in seconds."""
    return max([each.start - moment for each in failed(results, "POST")], default=0.0)


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_a_container_dies(gateway: Gateway, appos: list[AppoServer], app: str, end: str) -> None:
    """No GET fails; POSTs fail for 200 ms at most, and never afterwards."""
    first, second = appos
    windows = []
    for _ in range(ATTEMPTS):
        with traffic(user(app)) as client:
            moment = time.monotonic()
            getattr(first.containers(app)[-1], end)()
            gateway.await_state(first.name, app, "down")
            known = time.monotonic()
            client.goes_on(100)
            results = client.finish()
        assert failed(results, "GET") == []
        assert failed(since(results, known)) == []
        assert len(served_by(since(results, known), second)) == len(since(results, known))
        windows.append(last_failed_post(results, moment))
        assert windows[-1] < NEVER_LATER
        if windows[-1] <= AT_ONCE:
            break
        first.deploy(app)
        gateway.await_state(first.name, app, "up")
    assert min(windows) <= AT_ONCE, f"POSTs failed for so long, in seconds: {windows}"


def test_a_container_is_paused(gateway: Gateway, appos: list[AppoServer], app: str) -> None:
    """Nothing fails; what was inside the container waits until it goes on, and nothing else."""
    first, second = appos
    with traffic(user(app)) as client:
        first.containers(app)[0].pause()
        gateway.await_state(first.name, app, "down")
        paused = time.monotonic()
        client.goes_on(100)
        assert failed(client.results()) == []
        first.containers(app)[0].unpause()
        gateway.await_state(first.name, app, "up")
        goes_on = time.monotonic()
        client.goes_on()
        results = client.finish()
    assert failed(results) == []
    meanwhile = [each for each in since(results, paused) if each.end < goes_on]
    assert len(meanwhile) > 50
    assert len(served_by(meanwhile[:50], second)) == 50
    assert served_by(since(results, goes_on), first)


def test_a_redeploy_on_both_at_once(gateway: Gateway, appos: list[AppoServer], app: str) -> None:
    """Nothing fails: the old container serves until the new one does."""
    with traffic(user(app)) as client:
        for server in appos:
            server.deploy(app, slow=1.5, wait=False)
        for server in appos:
            _await_container(server, app, server.containers(app)[1].name)
        for server in appos:
            server.containers(app)[0].stop()
        client.goes_on(100)
        for server in appos:
            server.containers(app)[0].remove()
        client.goes_on(100)
        results = client.finish()
    assert failed(results) == []
    for server in appos:
        assert gateway.state(server.name, app) == "up"
        names = {each.said for each in served_by(results, server)}
        assert len(names) >= 2


def _await_container(server: AppoServer, app: str, name: str) -> None:
    def said() -> str:
        return ask(8010, f"/o/{app}/", host=server.address).body.decode()

    wait_for(lambda: name in said(), "the new container to serve")


def test_a_restart_with_a_slow_start(gateway: Gateway, appos: list[AppoServer], app: str) -> None:
    """No GET fails; POSTs fail at the moment of the stop, and not while the app starts."""
    first, _ = appos
    (first.apps / app / "slow").write_text("2")
    with traffic(user(app)) as client:
        first.containers(app)[0].restart()
        gateway.await_state(first.name, app, "down")
        known = time.monotonic()
        gateway.await_state(first.name, app, "up")
        assert first.serves(app)
        back = time.monotonic()
        client.goes_on()
        results = client.finish()
    assert failed(results, "GET") == []
    assert failed(since(results, known)) == []
    assert served_by(since(results, back), first)
    assert back - known > 1


def test_uwsgi_dies_in_a_running_container(
    gateway: Gateway, appos: list[AppoServer], app: str
) -> None:
    """No GET fails; a POST in two seconds may fail until the prober has noticed, and none then."""
    first, _ = appos
    container = first.containers(app)[0]
    with traffic(user(app)) as client:
        first.kill_app(app)
        died = time.monotonic()
        gateway.await_state(first.name, app, "down")
        known = time.monotonic()
        client.goes_on(100)
        container.reload()
        assert container.status == "running"
        container.restart()
        gateway.await_state(first.name, app, "up")
        results = client.finish()
    assert failed(results, "GET") == []
    # Those under way when the first one failed, and one each time the server is tried again.
    assert len(failed(results, "POST")) <= 4 + (known - died) / 2
    assert failed(since(results, known)) == []


def _freeze_service(server: AppoServer) -> None:
    server.signal_service(signal.SIGSTOP)


def _stop_service(server: AppoServer) -> None:
    server.service.stop()


@pytest.mark.parametrize(
    "end", [_stop_service, AppoServer.kill_service, _freeze_service], ids=["stop", "kill", "freeze"]
)
def test_a_service_goes(
    gateway: Gateway, appos: list[AppoServer], app: str, end: Callable[[AppoServer], None]
) -> None:
    """Nothing fails; the other server, of which more is known, gets the requests meanwhile."""
    first, second = appos
    with traffic(user(app)) as client:
        end(first)
        gateway.await_state(first.name, app, "unknown")
        known = time.monotonic()
        client.goes_on()
        healed = time.monotonic()
        first.heal()
        gateway.await_state(first.name, app, "up")
        back = time.monotonic()
        client.goes_on()
        results = client.finish()
    assert failed(results) == []
    meanwhile = [each for each in since(results, known) if each.end < healed]
    assert meanwhile
    assert len(served_by(meanwhile, second)) == len(meanwhile)
    assert served_by(since(results, back), first)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_appo_nginx_ends(
    gateway: Gateway, appos: list[AppoServer], app: str, number: signal.Signals
) -> None:
    """No GET fails; only POSTs that were under way when it ended may."""
    first, _ = appos
    with traffic(user(app)) as client:
        client.goes_on()
        moment = time.monotonic()
        first.nginx.stop(number)
        ended = time.monotonic()
        gateway.await_state(first.name, app, "unknown")
        client.goes_on(100)
        first.nginx.start()
        gateway.await_state(first.name, app, "up")
        client.goes_on()
        results = client.finish()
    assert failed(results, "GET") == []
    assert all(each.end > moment and each.start < ended for each in failed(results, "POST"))


def test_an_appo_nginx_freezes(gateway: Gateway, appos: list[AppoServer], app: str) -> None:
    """Nothing fails; requests sent to it before its silence is noticed wait until it goes on."""
    first, second = appos
    with traffic(user(app)) as client:
        first.nginx.signal(signal.SIGSTOP)
        gateway.await_state(first.name, app, "unknown")
        known = time.monotonic()
        client.goes_on(100)
        thawed = time.monotonic()
        first.nginx.signal(signal.SIGCONT)
        gateway.await_state(first.name, app, "up")
        results = client.finish()
    assert failed(results) == []
    meanwhile = [each for each in since(results, known) if each.start < thawed]
    assert len(served_by(meanwhile, second)) == len(meanwhile) > 50


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP])
def test_a_dockerd_goes(
    gateway: Gateway, appos: list[AppoServer], app: str, number: signal.Signals
) -> None:
    """Nothing fails: the containers go on, and the other server serves once nothing is known."""
    first, _ = appos
    with traffic(user(app)) as client:
        if number == signal.SIGSTOP:
            first.engine.signal(number)
        else:
            first.engine.stop(number)
        gateway.await_state(first.name, app, "down")
        client.goes_on()
        # One worker of the service may still know what the other does not.
        wait_for(lambda: gateway.status()[first.name].get("code") in (10, 11), "the reason")
        first.heal()
        gateway.await_state(first.name, app, "up")
        client.goes_on()
        results = client.finish()
    assert failed(results) == []


def test_the_gateway_is_reloaded(gateway: Gateway, appos: list[AppoServer], app: str) -> None:
    """Nothing fails, and what is believed stays; a container that dies then is noticed."""
    first, second = appos
    with traffic(user(app)) as client:
        for _ in range(3):
            gateway.reload()
            assert {gateway.state(each.name, app) for each in appos} == {"up"}
            client.goes_on()
        # In the other order, and with a server that comes.
        gateway.reload([second.name, first.name, "127.0.0.9:8010"])
        gateway.await_state("127.0.0.9:8010", app, "unknown")
        client.goes_on()
        assert failed(client.results()) == []
        first.containers(app)[0].kill()
        gateway.await_state(first.name, app, "down")
        known = time.monotonic()
        client.goes_on(100)
        results = client.finish()
    assert failed(results, "GET") == []
    assert failed(since(results, known)) == []
    assert sum("unknown -> known" in line for line in gateway.changes()) == 2


def test_the_watching_worker_is_killed(gateway: Gateway, appos: list[AppoServer], app: str) -> None:
    """No GET fails but those inside that worker; another worker watches then."""
    first, _ = appos
    watcher = gateway.status()[first.name]["watched_by"]
    os.kill(watcher, signal.SIGKILL)
    wait_for(
        lambda: gateway.status()[first.name].get("watched_by") not in (None, watcher),
        "a new watcher",
    )
    gateway.await_state(first.name, app, "up")
    with traffic(user(app)) as client:
        first.containers(app)[0].kill()
        gateway.await_state(first.name, app, "down")
        known = time.monotonic()
        client.goes_on()
        results = client.finish()
    assert failed(results, "GET") == []
    assert failed(since(results, known)) == []


def test_both_apps_are_down(gateway: Gateway, appos: list[AppoServer], app: str) -> None:
    """The user sees what the stock configuration shows; the first app that comes back serves."""
    first, second = appos
    with traffic(user(app)) as client:
        for server in appos:
            server.containers(app)[0].kill()
        for server in appos:
            gateway.await_state(server.name, app, "down")
        known = time.monotonic()
        client.goes_on()
        first.deploy(app)
        gateway.await_state(first.name, app, "up")
        back = time.monotonic()
        client.goes_on(100)
        results = client.finish()
    assert {each.status for each in failed(results)} == {502}
    assert {
        each.said for each in failed(since(results, known)) if "502 Bad Gateway" not in each.said
    } == set()
    assert len(served_by(since(results, back), first)) == len(since(results, back))
    assert served_by(results, second)


def test_both_services_are_gone(gateway: Gateway, appos: list[AppoServer], app: str) -> None:
    """Just what the stock configuration gives: a retried GET, and 502 or 404 when all are down."""
    first, _ = appos
    for server in appos:
        server.kill_service()
    for server in appos:
        gateway.await_state(server.name, app, "unknown")
    ours, stock = user(app), f"http://127.0.0.1:{STOCK_PORT}/o/{app}/"
    with traffic(ours) as client, traffic(stock) as stock_client:
        first.containers(app)[0].kill()
        wait_for(lambda: not first.serves(app), "the app to be gone")
        client.goes_on(100)
        stock_client.goes_on(100)
        results, stock_results = client.finish(), stock_client.finish()
    assert failed(results, "GET") == failed(stock_results, "GET") == []
    # The server that failed is tried last: one POST in two seconds, after those under way.
    seconds = results[-1].start - results[0].start
    assert len(failed(results, "POST")) <= 6 + seconds / 2
    _same_answers("/o/no_such_app/", 404)
    _same_answers("/o/no_such_app", 404)
    appos[1].containers(app)[0].kill()
    wait_for(lambda: not appos[1].serves(app), "the app to be gone")
    _same_answers(f"/o/{app}/", 502)


def _same_answers(path: str, status: int) -> None:
    for method in ("GET", "POST"):
        for port in (GATEWAY_PORT, STOCK_PORT):
            assert ask(port, path, method=method).status == status


def test_a_gateway_that_starts_with_everything_down_serves_what_comes(
    appos: list[AppoServer], app: str
) -> None:
    """Nothing known, nothing refused: the first request of all goes to a server."""
    with Gateway([each.name for each in appos], apps=[app]) as gateway:
        assert gateway.get(f"/o/{app}/").status == 200
        client: Client
        with traffic(user(app)) as client:
            client.goes_on()
            assert failed(client.finish()) == []
