"""A gateway of BlueKing's shape, with the package's files, in a root of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from sandbox.gateway import PACKAGING
from sandbox.kept import kept
from sandbox.waiting import wait_for
from tests.gateway.openresty import INTERNAL, PREFIX, PUBLIC, OpenResty, configuration

COMMAND = "/usr/local/sbin/container-healthcheck-gateway"
CONF = f"{PREFIX}/conf"
LUA = f"{PREFIX}/lua/container-healthcheck"
TEMPLATES = "/etc/consul-template/templates"
TEMPLATE = f"{TEMPLATES}/app_upstream.conf.tpl"
RENDERED = f"{CONF}/conf.d/app_upstream.conf"
STATE = "/var/lib/container-healthcheck-gateway"
KEYS = "/etc/consul-keys.json"
LOGS = "/data/bkee/logs/nginx"
LINE = next(
    line
    for line in (PACKAGING / "openresty" / "upstream.conf").read_text().splitlines()
    if line.startswith("balancer_by_lua_block")
)

# One loop over the test apps, one over the production apps; no end of line at its end.
_LOOP = """{{ range ls "bkapps/upstreams/%s" }}
upstream {{ .Key }} {\x20
        {{ with $servers := .Value | parseJSON }}
        {{ range $server := $servers }} server {{ $server }} max_fails=1 fail_timeout=30s;
        {{ end }} {{ end }}\x20
}
{{ end }}"""
APP_UPSTREAMS = f"# test\n{_LOOP % 'test'}\n\n# production\n{_LOOP % 'prod'}"

_HEADERS = """        proxy_pass_header Server;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_set_header Host $http_host;
        proxy_redirect off;
        proxy_read_timeout 600;
"""


def _locations(servers: str) -> str:
    return f"""    set $appo_servers "{servers}";
    location / {{
        proxy_pass http://OPEN_PAAS;
{_HEADERS}    }}
    location ~ ^/t/([^/]+) {{
        set $a '.';
        set $test_app "t$a$1";
        proxy_pass http://$test_app;
{_HEADERS}    }}
    # for production apps
    location ~ ^/o/([^/]+) {{
        set $app "$1";
        proxy_pass http://$app;
{_HEADERS}    }}
"""


def paas(servers: str) -> str:
    """The site: the public name by http and https, and the name inside Consul."""
    return f"""upstream OPEN_PAAS {{
    server 127.0.0.1:8001 max_fails=1 fail_timeout=30s;
}}
server {{
    listen 80;
    server_name {PUBLIC};
    error_log {LOGS}/paas_web_error.log error;
    listen 443 ssl;
    include {CONF}/bk.ssl;
    if ($scheme = http) {{
        return 301 https://$server_name$request_uri;
    }}
    location ~ /metrics$ {{
        return 403;
    }}
    location ^~ /o/bk_bcs_app/web_console/ {{
        return 204;
    }}
{_locations(servers)}}}
server {{
    listen 80;
    server_name {INTERNAL};
    error_log {LOGS}/paas_api_error.log error;
{_locations(servers)}}}
"""


def _pair(source: str, destination: str) -> str:
    reload = f"{PREFIX}/sbin/nginx -t && systemctl reload openresty || true"
    return f"""template {{
  source = "{source}"
  destination = "{destination}"
  command = "/bin/sh -c '{reload}'"
  command_timeout = "10s"
}}
"""


# systemd, as far as the command and consul-template call it.
_SYSTEMCTL = f"""#!/bin/sh
echo "$*" >>/systemctl.log
case $* in
    "-q is-active consul-template") exit 0 ;;
    "reload-or-restart consul-template")
        exec consul-template -config /etc/consul-template/conf.d -once ;;
    "reload openresty") exec {PREFIX}/sbin/nginx -s reload ;;
    *) exit 1 ;;
esac
"""


@dataclass(frozen=True)
class Done:
    """How a run of the command ended."""

    code: int
    said: str


class BlueKing(OpenResty):
    """The gateway, with the apps given and APPO servers `servers`; a context manager.

    `program` is the stand-in for consul-template.
    """

    def __init__(self, servers: list[str], apps: list[str], program: Path) -> None:
        super().__init__()
        self._servers = servers
        self._program = program
        self.keys = {f"bkapps/upstreams/prod/{app}": json.dumps(servers) for app in apps}
        self.keys["bkapps/upstreams/test/t.bk_iam"] = json.dumps(servers)

    def __enter__(self) -> BlueKing:
        super().__enter__()
        return self

    def _furnish(self) -> None:
        super()._furnish()
        self.path(LOGS).mkdir(parents=True, exist_ok=True)
        for folder in ("/etc/consul-template/conf.d", "/usr/local/sbin"):
            self.path(folder).mkdir(parents=True, exist_ok=True)
        # Debian's awk is a link into /etc.
        shutil.copytree("/etc/alternatives", self.path("/etc/alternatives"), symlinks=True)
        self.install()
        log = f"error_log {LOGS}/error.log;\nuser root;"
        self.write(f"{CONF}/nginx.conf", configuration().replace("user root;", log))
        self.write(f"{CONF}/mime.types", "types { text/html html; }\n")
        _make_certificate(self.path(CONF))
        self.write(f"{CONF}/bk.ssl", "ssl_certificate bk.crt;\nssl_certificate_key bk.key;\n")
        site = paas(" ".join(self._servers))
        for name in (f"{TEMPLATES}/paas.conf", f"{CONF}/conf.d/paas.conf"):
            self.write(name, site)
        self.write(TEMPLATE, APP_UPSTREAMS)
        for name, pair in (
            ("paas", _pair(f"{TEMPLATES}/paas.conf", f"{CONF}/conf.d/paas.conf")),
            ("app_upstream", _pair(TEMPLATE, RENDERED)),
        ):
            self.write(f"/etc/consul-template/conf.d/{name}.conf", pair)
        self.write("/usr/local/bin/systemctl", _SYSTEMCTL, mode=0o755)
        shutil.copy(self._program, self.path("/usr/local/bin/consul-template"))
        self.write_keys()
        self.run(f"consul-template -template {TEMPLATE}:{RENDERED} -once")

    def install(self) -> None:
        """The files of the package."""
        source = PACKAGING / "openresty"
        shutil.copytree(source / "lua", self.path(LUA))
        for name, target in (
            ("http.conf", f"{CONF}/conf.d/container-healthcheck.conf"),
            ("status.conf", f"{CONF}/container-healthcheck-status.conf"),
            ("upstream.conf", f"{CONF}/container-healthcheck-upstream.conf"),
            ("container-healthcheck-gateway", COMMAND),
        ):
            shutil.copy(source / name, self.path(target))

    def write(self, name: str, text: str, mode: int = 0o644) -> None:
        """Writes a file of the gateway."""
        self._write(name, text.encode(), mode)

    def read(self, name: str) -> bytes:
        return self.path(name).read_bytes()

    def write_keys(self) -> None:
        """Gives Consul the keys as they are now."""
        self.write(KEYS, json.dumps(self.keys))

    def command(self, arguments: str, shell: str = "dash", before: str = ":") -> Done:
        """Runs the command by a shell, after a script in its own mount namespace."""
        said = self.run(f"{before}\nset +e\n{shell} {COMMAND} {arguments}\necho $?")
        text, _, code = said.rstrip("\n").rpartition("\n")
        return Done(int(code), text)

    def files(self) -> tuple[bytes, bytes]:
        """The template, and what was rendered from it."""
        return self.read(TEMPLATE), self.read(RENDERED)

    def reload(self) -> None:
        """Reloads nginx, and waits for new workers."""
        pid = int(self.read(f"{PREFIX}/logs/nginx.pid"))
        children = Path(f"/proc/{pid}/task/{pid}/children")
        old = set(children.read_text().split())
        self.run(f"{PREFIX}/sbin/nginx -s reload")
        wait_for(lambda: not set(children.read_text().split()) & old, "new workers")


def build_consul_template() -> Path:
    """The stand-in for consul-template, built once and kept."""
    target = kept() / "consul-template-once"
    source = Path(__file__).parent / "consul_template_once.go"
    environment = {**os.environ, "GOCACHE": str(kept() / "go"), "CGO_ENABLED": "0"}
    new = target.with_name(f".{target.name}.{os.getpid()}")
    subprocess.run(["go", "build", "-o", new, source], check=True, env=environment)
    new.rename(target)
    return target


def _make_certificate(folder: Path) -> None:
    wanted = ["-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={PUBLIC}"]
    files = ["-keyout", str(folder / "bk.key"), "-out", str(folder / "bk.crt")]
    subprocess.run(["openssl", "req", "-x509", *wanted, *files], check=True, capture_output=True)
