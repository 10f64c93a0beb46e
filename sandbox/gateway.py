"""A gateway and APPO servers, all real, on the loopback of one network namespace.

An APPO server is an nginx on port 8010 of its address, a private Docker engine, the service, and
apps in containers; the gateway is an nginx with the Lua of packaging/openresty. The caller must be
in a namespace made for the purpose (`sandbox.network`).
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import docker

from sandbox.nginx import MODULES, Build, Nginx
from sandbox.private_engine import PrivateEngine, SandboxError
from sandbox.running_service import SOURCE, Answer, RunningService, ask
from sandbox.waiting import LIMIT, wait_for

APPO_PORT = 8010
SERVICE_PORT = 4246
GATEWAY_PORT = 8080
STOCK_PORT = 8081
PACKAGING = SOURCE / "packaging"
INSTALLED = "/usr/local/openresty/nginx/lua/container-healthcheck"
WORKERS = 2
# So long after one nginx worker has heard of a change, all of them act by it. In seconds.
A_MOMENT = 0.2


def missing() -> str | None:
    """What keeps this machine's nginx from being a gateway, or None."""
    if shutil.which("nginx") is None:
        return "not installed: nginx (Debian: nginx-core)"
    module = MODULES / "ngx_http_lua_module.so"
    if not module.exists():
        return f"nginx has no Lua module here: {module} (Debian: libnginx-mod-http-lua)"
    if not list(MODULES.parent.parent.glob("*/lua/5.1/cjson.so")):
        return "Lua has no cjson here (Debian: lua-cjson)"
    return None


class AppoServer:
    """One APPO server on `address`; a context manager.

    Its service notices a failing app within a second or so (see `settings`).
    """

    def __init__(self, address: str, **settings: object) -> None:
        self.address = address
        self.name = f"{address}:{APPO_PORT}"
        self._temporary = tempfile.TemporaryDirectory(prefix="chc-appo-")
        self.apps = Path(self._temporary.name)
        self.engine = PrivateEngine(own_network=False)
        quick: dict[str, Any] = {
            **{"resync_interval": 1, "docker_timeout": 1, "stale_after": 3},
            **{"probe_url": f"http://{self.name}/o/{{app_code}}/", "probe_interval": 0.5},
            **{"probe_timeout": 1, "workers": 2},
        }
        self.service = RunningService(
            self.engine.url, bind=f"{address}:{SERVICE_PORT}", **{**quick, **settings}
        )
        self.nginx = Nginx(self._nginx_configuration())
        self._stack = contextlib.ExitStack()
        self._containers: list[Any] = []
        self._numbers = itertools.count(1_700_000_000)

    def __enter__(self) -> AppoServer:
        with contextlib.ExitStack() as stack:
            stack.callback(self._temporary.cleanup)
            for part in (self.engine, self.service, self.nginx):
                stack.enter_context(part)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _nginx_configuration(self) -> str:
        location = (PACKAGING / "nginx" / "appo-location.conf").read_text()
        location = location.replace("127.0.0.1:4246", f"{self.address}:{SERVICE_PORT}")
        run = f"{self.apps}/$2/run"
        # As on a real one, but for HTTP to the app's socket instead of uwsgi's protocol.
        return f"""
    server {{
        listen {self.name};
        location ~ ^/(t|o)/([^/]+) {{
            if (!-e {run}/uwsgi.pid) {{ return 404; }}
            proxy_pass http://unix:{run}/uwsgi.sock:$request_uri;
            proxy_read_timeout 600;
        }}
        {location}
    }}"""

    def deploy(self, app_code: str, *, slow: float = 0, wait: bool = True) -> Any:
        """Starts a container of the app, as paasagent does; returns docker-py's object of it.

        The app in it serves after `slow` seconds; `wait` waits for that and for the service to say
        so. The container before it, if any, is left.
        """
        folder = self.apps / app_code
        folder.mkdir(exist_ok=True)
        (folder / "slow").write_text(str(slow))
        name = f"{app_code}-{next(self._numbers)}"
        app = f"{sys.executable} {SOURCE}/sandbox/sample_app.py {folder} {self.address}-{name}"
        # The image has no Python: the app runs in the host's files, which it sees at /host.
        builder = f"trap 'exit 0' TERM; busybox chroot /host {app} & "
        container = self.engine.run(
            name,
            shlex.join(["sh", "-c", builder + "while :; do sleep 1 & wait $!; done"]),
            volumes={
                "/": {"bind": "/host", "mode": "ro"},
                str(self.apps): {"bind": f"/host{self.apps}", "mode": "rw"},
            },
        )
        self._containers.append(container)
        if wait:
            self.await_app(app_code)
        return container

    def await_app(self, app_code: str) -> None:
        """Waits until the app serves and every worker of the service says so."""
        wait_for(lambda: self.serves(app_code), f"{app_code} on {self.address} to serve")
        self.service.settle(app_code, 0)

    def containers(self, app_code: str) -> list[Any]:
        """The containers of the app, oldest first."""
        return [each for each in self._containers if each.name.startswith(f"{app_code}-")]

    def serves(self, app_code: str) -> bool:
        """Whether the app answers through this server's nginx."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            return ask(APPO_PORT, f"/o/{app_code}/", host=self.address).status == 200
        return False

    def kill_app(self, app_code: str) -> None:
        """Ends the app that answers, and not its container: what uwsgi does when it dies."""
        # The number in the pid file is one of the container's own.
        pid = (self.apps / app_code / "run" / "uwsgi.pid").read_text()
        done = self.containers(app_code)[-1].exec_run(["kill", "-9", pid])
        assert done.exit_code == 0, done.output

    def signal_service(self, number: signal.Signals) -> None:
        """Sends a signal to the service's first process and all its workers."""
        assert self.service.process is not None
        for pid in [*self.service.workers(), self.service.process.pid]:
            os.kill(pid, number)

    def kill_service(self) -> None:
        """Ends all processes of the service at once."""
        assert self.service.process is not None
        self.signal_service(signal.SIGKILL)
        self.service.process.wait(timeout=LIMIT)
        self.service.process = None

    def heal(self) -> None:
        """Makes nginx, service and engine run again, whatever was done to them."""
        self.nginx.heal()
        if self.service.process is None:
            self.service.start()
        self.signal_service(signal.SIGCONT)
        try:
            self.engine.signal(signal.SIGCONT)
        except (SandboxError, FileNotFoundError):
            self.engine.start()
        wait_for(lambda: self.service.get("/ready").status == 200, "the service to be ready")

    def clear(self) -> None:
        """Removes the containers."""
        for container in self._containers:
            with contextlib.suppress(docker.errors.NotFound):
                container.remove(force=True)
        self._containers.clear()


@dataclass(frozen=True)
class Result:
    """What one request of the client got. Times in seconds, on time.monotonic's clock."""

    method: str
    start: float
    end: float
    status: int
    said: str

    @property
    def failed(self) -> bool:
        """True when the user did not get what the app says."""
        return self.status != 200

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.end - self.start


class Client:
    """A process that keeps sending GETs and POSTs; a context manager. See sandbox/load.py."""

    def __init__(self, url: str, rate: float = 50) -> None:
        self._output = tempfile.TemporaryFile("w+b")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sandbox.load", url, str(rate)],
            cwd=SOURCE,
            stdin=subprocess.PIPE,
            stdout=self._output,
            env={key: value for key, value in os.environ.items() if "COVERAGE" not in key},
        )
        self._started = time.monotonic()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._output.close()

    def results(self) -> list[Result]:
        """What came so far, in the order of the answers."""
        data = os.pread(self._output.fileno(), 1 << 28, 0)
        return [
            Result(**json.loads(line))
            for line in data.splitlines(keepends=True)
            if line.endswith(b"\n")
        ]

    def goes_on(self, requests: int = 40) -> None:
        """Waits until that many requests begun from now on are answered."""
        now = time.monotonic()
        wait_for(
            lambda: sum(each.start > now for each in self.results()) >= requests, "more answers"
        )

    def finish(self) -> list[Result]:
        """Ends it, and returns all results in the order of their beginnings."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(timeout=LIMIT) == 0
        return sorted(self.results(), key=lambda each: each.start)


def stock_location(location: str) -> str:
    """The location as it was, but that it keeps connections to the servers."""
    without_lua = re.sub(r"(?m)^.*(target_up \$|_by_lua).*\n", "", location)
    return without_lua.replace("http://$target_up", "http://$app")


class Gateway:
    """The gateway's nginx with our Lua on port 8080, and the stock location on 8081.

    `servers` is what `$appo_servers` says. `edit` changes the http block and `edit_lua` each script
    before it is written, `include` is more of the http block, `user` is whom the workers run as and
    `connections` how many each may have. All gateways run on `build`, with the Lua in the location
    or, when `way` is "upstream", in the upstreams of `apps`.
    """

    build: ClassVar[Build] = Build()
    way: ClassVar[str] = "location"

    def __init__(
        self,
        servers: Sequence[str],
        *,
        apps: Sequence[str] = ("bk_iam", "other"),
        edit: Callable[[str], str] = lambda text: text,
        edit_lua: Callable[[str], str] = lambda text: text,
        include: str = "",
        user: str = "root",
        connections: int = 4096,
    ) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="chc-lua-")
        self.lua = Path(self._temporary.name)
        self._apps = apps
        self._edit = edit
        self._include = include
        self._edit_lua = edit_lua
        if self.build.lua:
            shutil.copytree(self.build.lua, self.lua, dirs_exist_ok=True)
        self.nginx = Nginx(
            self.configuration(servers),
            modules=("ndk_http_module.so", "ngx_http_lua_module.so"),
            workers=WORKERS,
            build=self.build,
            user=user,
            connections=connections,
        )

    def __enter__(self) -> Gateway:
        self.nginx.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.nginx.__exit__()
        self._temporary.cleanup()

    def configuration(self, servers: Sequence[str]) -> str:
        """The http block for these servers."""
        lua = PACKAGING / "openresty" / "lua"
        for script in [*lua.rglob("*.lua"), *lua.rglob("*.html")]:
            text = self._edit_lua(script.read_text())
            for old, new in self.build.edits:
                text = text.replace(old, new)
            target = self.lua / script.relative_to(lua)
            target.parent.mkdir(exist_ok=True)
            target.write_text(text)

        def installed(name: str) -> str:
            return (PACKAGING / "openresty" / name).read_text().replace(INSTALLED, str(self.lua))

        stock = "".join(
            f"server {each.partition('*')[0]} max_fails=1 fail_timeout=30s; " for each in servers
        )
        location, upstreams = installed("location.conf"), ""
        if self.way == "upstream":
            location = stock_location(location)
            line = installed("upstream.conf")
            upstreams = "".join(
                f"upstream {app} {{\n{stock}\n{line}\n    keepalive 16;\n}}\n" for app in self._apps
            )
        text = f"""
    proxy_next_upstream http_502 http_504 error timeout invalid_header;
    proxy_connect_timeout 3;
    upstream stock {{ {stock} }}
    {upstreams}
    {installed("http.conf")}
    {self._libraries()}
    {self._include}
    server {{
        listen 127.0.0.1:{GATEWAY_PORT};
        set $appo_servers "{" ".join(servers)}";
        {location}
        {installed("status.conf")}
    }}
    server {{
        listen 127.0.0.1:{STOCK_PORT};
        location ~ ^/o/([^/]+) {{
            set $app "stock";
            proxy_pass http://$app;
            proxy_set_header Host $http_host;
            proxy_read_timeout 600;
        }}
    }}"""
        return self._edit(text)

    def _libraries(self) -> str:
        folder = self.build.lua_libraries
        return f'lua_package_cpath "{folder}/?.so;;";' if folder else ""

    def reload(self, servers: Sequence[str] | None = None) -> None:
        """Reloads, with other servers when given."""
        if servers is not None:
            self.nginx.write(self.configuration(servers))
        self.nginx.reload()

    def get(self, path: str, **options: Any) -> Answer:
        """A request of a user."""
        return ask(GATEWAY_PORT, path, **options)

    def status(self) -> dict[str, Any]:
        """What the status page says of each server, by address."""
        answer = self.get("/container-healthcheck-gateway")
        assert answer.status == 200, answer
        return {each["server"]: each for each in answer.json["servers"]}

    def state(self, server: str, app_code: str) -> str:
        """`up`, `down` or `unknown`: what the gateway considers an app on a server to be."""
        entry = self.status().get(server)
        if entry is None or entry["state"] == "unknown":
            return "unknown"
        if entry["state"] == "down" or app_code not in entry["apps"]:
            return "down"
        return str(entry["apps"][app_code]["state"])

    def await_state(self, server: str, app_code: str, state: str) -> None:
        """Waits until the gateway considers it that, and acts by it.

        Its page shows what one nginx worker has just written; the others act by it a moment later.
        """
        wait_for(
            lambda: self.state(server, app_code) == state, f"{app_code} on {server} to be {state}"
        )
        acted_by = time.monotonic() + A_MOMENT
        wait_for(lambda: time.monotonic() > acted_by, "all nginx workers to act by it")

    def changes(self) -> list[str]:
        """The lines that the module has written to the error log."""
        lines = self.nginx.log().splitlines()
        return [
            line.partition("container-healthcheck: ")[2].partition(", context:")[0]
            for line in lines
            if "container-healthcheck: " in line
        ]


@contextlib.contextmanager
def traffic(url: str, rate: float = 50) -> Iterator[Client]:
    """A client that keeps asking, once it has got its first answers."""
    with Client(url, rate) as client:
        client.goes_on(20)
        yield client
