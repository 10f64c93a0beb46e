"""The demo: a private engine with sample apps, the service, and its answers; until Ctrl-C."""

from __future__ import annotations

import shlex
import shutil
import signal
import subprocess
import sys
from typing import NoReturn

from sandbox.private_engine import PrivateEngine, SandboxError
from sandbox.running_service import PREFIX, RunningService
from sandbox.waiting import first_free_port, wait_for

PORT = 4246
_SECOND = 1_000_000_000


def main() -> int:
    """Runs the demo and returns the exit code."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        with PrivateEngine() as engine:
            _start_apps(engine)
            _serve(engine)
    except SandboxError as error:
        print(
            f"The demo needs an engine of its own, and cannot start one: {error}", file=sys.stderr
        )
        return 1
    except KeyboardInterrupt:
        print("\nEverything is stopped and removed.")
    return 0


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _start_apps(engine: PrivateEngine) -> None:
    _say("Starting sample apps on a private Docker engine, named as paasagent names them")
    _tell("bk_iam", "healthy")
    engine.run("bk_iam-1709878117")
    _tell("bk_sops", "redeploying: two containers")
    engine.run("bk_sops-1709878117")
    engine.run("bk_sops-1709964517")
    _tell("bk_monitorv3", "dead: its process has ended")
    engine.run("bk_monitorv3-1709878117", command="sh -c 'exit 1'")
    _tell("bk_log_search", "unhealthy: its HEALTHCHECK fails")
    healthcheck = {"test": ["CMD", "test", "-e", "/well"], "interval": _SECOND, "retries": 1}
    engine.run("bk_log_search-1709878117", healthcheck=healthcheck)


def _serve(engine: PrivateEngine) -> None:
    port = first_free_port(PORT)
    if port != PORT:
        _say(f"Port {PORT} is taken: the service takes {port}")
    service = RunningService(engine.url, quiet=False, bind=f"127.0.0.1:{port}")
    _say("Starting the service; its log follows")
    with service:
        wait_for(lambda: b"unhealthy" in service.check("bk_log_search").body, "a HEALTHCHECK")
        base = f"http://localhost:{port}{service.prefix}"
        _say("Asking it")
        _run("curl", "-s", f"{base}/health")
        _run("curl", "-s", f"{base}/apps/health/bk_iam")
        _run("curl", "-s", f"{base}/apps/health/bk_sops?all=true")
        _run("curl", "-s", f"{base}/apps/health/bk_monitorv3")
        _run("curl", "-s", f"{base}/apps/health/bk_log_search")
        _run("curl", "-s", f"{base}/apps/health/bk_nothere")
        _run("curl", "-s", f"{base}/apps/health")
        _say("It stays up until Ctrl-C. Try in this folder, in another terminal:")
        print(f"  curl {base}/apps")
        if shutil.which("docker"):
            print(f"  docker -H {engine.url} kill bk_iam-1709878117")
        ours = (f"{PREFIX}STATE_DIR={service.folder.name}", f"{PREFIX}BIND=127.0.0.1:{port}")
        command = f"{' '.join(ours)} {sys.executable} -m container_healthcheck"
        print(f"  {command} drain bk_sops --reason 'disk change' --for 30m")
        print(f"  {command} list", flush=True)
        signal.pause()


def _run(*command: str) -> None:
    print(f"\n$ {shlex.join(command)}", flush=True)
    subprocess.run(command, check=True)
    print(flush=True)


def _tell(app_code: str, what: str) -> None:
    print(f"    {app_code:<14} {what}", flush=True)


def _say(text: str) -> None:
    print(f"\n==> {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
