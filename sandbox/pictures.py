"""Pictures of the pages, for the documents: two APPO servers and a gateway with some trouble.

`python -m sandbox.pictures FOLDER` writes FOLDER/en/page.png and so on. It renames the host that
it runs on: call it in a UTS namespace of its own, as `make pictures` does.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from sandbox.browser import Browser, Window
from sandbox.gateway import GATEWAY_PORT, SERVICE_PORT, AppoServer, Gateway
from sandbox.network import Network
from sandbox.running_service import SOURCE
from sandbox.waiting import wait_until

LANGUAGES = ("en", "zh")
WIDTH, SCALE = 1200, 1.25
_APPS = ("bk_iam", "bk_itsm", "bk_log_search", "bk_monitorv3", "bk_nodeman", "bk_sops")
_DEAD, _FAILING, _DRAINED = "bk_monitorv3", "bk_nodeman", "bk_itsm"
# The service finds its engine where Docker has it on a real host.
_USUAL_SOCKET = 'mount -t tmpfs tmpfs /run && ln -s "$0" /run/docker.sock && exec "$@"'


def main(folder: Path) -> None:
    """Makes all of them."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(stack.enter_context(Network()).entered())
        servers = [stack.enter_context(_server(f"127.0.0.{number}")) for number in (1, 2)]
        for each in servers:
            _deploy(each)
        # The pages name their hosts.
        socket.sethostname("gateway")
        gateway = stack.enter_context(Gateway([each.name for each in servers]))
        socket.sethostname("appo-1")
        _trouble(*servers)
        for app_code in _APPS:
            gateway.get(f"/o/{app_code}/")
        for app_code, state in ((_DEAD, "down"), (_FAILING, "down"), ("bk_sops", "up")):
            gateway.await_state(servers[0].name, app_code, state)
        browser = stack.enter_context(Browser())
        for language in LANGUAGES:
            with browser.window(language) as window:
                window.open(f"http://127.0.0.1:{SERVICE_PORT}/container-healthcheck")
                _take(window, folder / language / "page.png")
                window.open(f"http://127.0.0.1:{GATEWAY_PORT}/container-healthcheck-gateway")
                wait_until(lambda: window.text("tbody"), bool, "the apps")
                _take(window, folder / language / "fleet.png")


def _server(address: str) -> AppoServer:
    server = AppoServer(address)
    service = server.service
    prepared = ("unshare", "--mount", "sh", "-c", _USUAL_SOCKET, str(server.engine.socket))
    service.command = [*prepared, *service.command]
    del service.environment["DOCKER_HOST"]
    return server


def _deploy(server: AppoServer) -> None:
    for app_code in _APPS:
        server.deploy(app_code, wait=False)
    for app_code in _APPS:
        server.await_app(app_code)
    # As if it had been so for long: none of the changes that a deployment brings.
    server.service.stop()
    for each in Path(server.service.folder.name).iterdir():
        if each != server.service.log:
            shutil.rmtree(each) if each.is_dir() else each.unlink()
    server.service.start()
    for app_code in _APPS:
        server.await_app(app_code)


def _trouble(first: AppoServer, second: AppoServer) -> None:
    for each in (first, second):
        each.containers(_DEAD)[-1].kill()
    first.kill_app(_FAILING)
    _command(first, "drain", _DRAINED, "--reason", "disk change", "--for", "4h")
    for server, app_code, code in (
        *((each, _DEAD, 13) for each in (first, second)),
        *((first, _FAILING, 14), (first, _DRAINED, 15)),
    ):
        server.service.settle(app_code, code)


def _command(server: AppoServer, *arguments: str) -> None:
    command = [sys.executable, "-m", "container_healthcheck", *arguments]
    subprocess.run(
        command, cwd=SOURCE, env=server.service.environment, check=True, capture_output=True
    )


def _take(window: Window, path: Path) -> None:
    wait_until(lambda: window.text("body"), lambda text: _DEAD in text, "the page")
    path.parent.mkdir(parents=True, exist_ok=True)
    few_colours = ["pngquant", "--speed", "1", "--strip", "-"]
    path.write_bytes(
        subprocess.run(
            few_colours, input=window.picture(WIDTH, SCALE), stdout=subprocess.PIPE, check=True
        ).stdout
    )
    print(f"{path}: {path.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
