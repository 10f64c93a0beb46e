"""A gateway as the READMEs know it: Debian's nginx under OpenResty's paths, in its own root."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from pathlib import Path

from sandbox.gateway import PACKAGING
from sandbox.nginx import MODULES
from sandbox.waiting import LIMIT, wait_for

PREFIX = "/usr/local/openresty/nginx"
LOGS = "/data/bkee/logs/nginx"
_TEMPLATES = "/etc/consul-template/templates"
TEMPLATE = f"{_TEMPLATES}/paas.conf"
APP_TEMPLATE = f"{_TEMPLATES}/app_upstream.conf.tpl"
_CONF_D = f"{PREFIX}/conf/conf.d"
_NGINX = f"""#!/bin/sh
exec /usr/sbin/nginx -p {PREFIX}/ -c {PREFIX}/conf/nginx.conf -e {PREFIX}/logs/error.log "$@"
"""
# One loop over the test apps, one over the production apps.
_LOOP = """{{ range ls "bkapps/upstreams/%s" }}
upstream {{ .Key }} {
    {{ range $server := .Value | parseJSON }}server {{ $server }} max_fails=1 fail_timeout=30s;
    {{ end }}
}
{{ end }}"""
APP_UPSTREAMS = f"{_LOOP % 'test'}\n{_LOOP % 'prod'}\n"
# What consul-template makes of them; the site's own template has nothing to fill in.
_RENDER = rf"""#!/usr/bin/python3
import re, shutil
apps = {{"prod": ["bk_iam", "bk_sops"], "test": ["t.bk_iam"]}}
def servers(match):
    each = ("127.0.0.1:8010", "127.0.0.2:8010")
    return "".join(match[1].replace("{{{{ $server }}}}", server) for server in each)
def upstreams(match):
    body = re.sub(r"{{{{ range \$server.*?}}}}(.*?){{{{ end }}}}", servers, match[2], flags=re.S)
    return "".join(body.replace("{{{{ .Key }}}}", app) for app in apps[match[1]])
text = open("{APP_TEMPLATE}").read()
loops = r'{{{{ range ls "bkapps/upstreams/(\w+)" }}}}(.*?\n}}\n){{{{ end }}}}'
open("{_CONF_D}/app_upstream.conf", "w").write(re.sub(loops, upstreams, text, flags=re.S))
shutil.copy("{TEMPLATE}", "{_CONF_D}/paas.conf")
"""
_SYSTEMCTL = f"""#!/bin/sh
[ "$*" = "restart consul-template" ] || exit 1
/usr/local/bin/render && exec {PREFIX}/sbin/nginx -s reload
"""


def configuration(modules: Path = MODULES, log: str = "logs/error.log") -> str:
    """The nginx.conf of a gateway whose nginx has its modules, and its log, there."""
    return f"""load_module {modules}/ndk_http_module.so;
load_module {modules}/ngx_http_lua_module.so;
user root;
error_log {log};
worker_processes 2;
pid logs/nginx.pid;
events {{ }}
http {{
    access_log off;
    proxy_next_upstream http_502 http_504 error timeout invalid_header;
    proxy_connect_timeout 3;
    server {{
        listen 80 default_server;
        return 444;
    }}
    include conf.d/*.conf;
}}
"""


# The name in Consul, which backends call, and the public one.
INTERNAL = "paas.service.consul"
PUBLIC = "paas.example.com"
_LOCATIONS = """    set $appo_servers "127.0.0.1:8010 127.0.0.2:8010";
    location ~ ^/o/([^/]+) {
        set $app "$1";
        proxy_pass http://$app;
        proxy_pass_header Server;
        proxy_set_header Host $http_host;
        proxy_read_timeout 600;
    }
"""
# BlueKing's own, as far as it matters. Debian has no ngx.upstream: hence `$appo_servers`.
_SITE = f"""server {{
    listen 80;
    server_name {PUBLIC};
    location ~ /metrics$ {{
        return 403;
    }}
{_LOCATIONS}}}
server {{
    listen 80;
    server_name {INTERNAL};
{_LOCATIONS}}}
"""
_MOUNTS = """
for each in usr dev proc; do mount --rbind /$each "$0/$each"; done
mount -o remount,bind,ro "$0/usr"
mount --bind "$0/local" "$0/usr/local"
cd "$0" && exec chroot "$0" "$@"
"""


class OpenResty:
    """The gateway's file system, with a running nginx; a context manager.

    The files of packaging/openresty lie in /root/openresty, where commands run.
    """

    def __init__(self) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="chc-openresty-")
        self.root = Path(self._temporary.name)
        self._stack = contextlib.ExitStack()

    def path(self, name: str) -> Path:
        """Where a file of the gateway is."""
        if name.startswith("/usr/local/"):
            return self.root / "local" / name.removeprefix("/usr/local/")
        return self.root / name.lstrip("/")

    def __enter__(self) -> OpenResty:
        with contextlib.ExitStack() as stack:
            stack.callback(self._temporary.cleanup)
            self._furnish()
            nginx = subprocess.Popen(
                self._command(f"exec {PREFIX}/sbin/nginx -g 'daemon off;'"),
                stderr=subprocess.DEVNULL,
            )
            stack.callback(_end, nginx)
            wait_for(self.path(f"{PREFIX}/logs/nginx.pid").exists, "nginx to start")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _furnish(self) -> None:
        for folder in ("usr", "dev", "proc", "tmp", "var/lib/nginx", "local/bin", "root"):
            (self.root / folder).mkdir(parents=True)
        for name in ("bin", "lib", "lib64", "sbin"):
            (self.root / name).symlink_to(f"usr/{name}")
        for name in ("passwd", "group", "ld.so.cache"):
            self._write(f"/etc/{name}", Path(f"/etc/{name}").read_bytes())
        shutil.copytree(PACKAGING / "openresty", self.path("/root/openresty"))
        for folder in (f"{PREFIX}/conf/conf.d", f"{PREFIX}/logs", LOGS):
            self.path(folder).mkdir(parents=True)
        text = configuration(log=f"{LOGS}/error.log")
        self._write(f"{PREFIX}/conf/nginx.conf", text.encode())
        self._write(TEMPLATE, _SITE.encode())
        self._write(APP_TEMPLATE, APP_UPSTREAMS.encode())
        self._write("/usr/local/bin/render", _RENDER.encode(), mode=0o755)
        self.run("/usr/local/bin/render")
        self._write(f"{PREFIX}/sbin/nginx", _NGINX.encode(), mode=0o755)
        self._write("/usr/local/bin/systemctl", _SYSTEMCTL.encode(), mode=0o755)

    def _write(self, name: str, data: bytes, mode: int = 0o644) -> None:
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(mode)

    def _command(self, script: str) -> list[str]:
        shell = ["sh", "-ec", f"cd /root/openresty\n{script}"]
        return ["unshare", "--mount", "sh", "-ec", _MOUNTS, str(self.root), *shell]

    def run(self, script: str, *, check: bool = True, **variables: str) -> str:
        """What a script prints there, errors too. Raises AssertionError when it fails."""
        environment = {"PATH": "/usr/local/bin:/usr/bin:/usr/sbin", **variables}
        done = subprocess.run(
            self._command(script),
            env={**environment, "HOME": "/root", "LANG": "C"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert not check or done.returncode == 0, f"{script}\n{done.returncode}: {done.stdout}"
        return done.stdout


def _end(nginx: subprocess.Popen[bytes]) -> None:
    nginx.terminate()
    try:
        nginx.wait(timeout=LIMIT)
    finally:
        nginx.kill()
        nginx.wait()
