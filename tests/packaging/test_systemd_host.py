"""On a host with systemd where the service runs: what it does, and mishaps and mistakes."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable, Iterator

import pytest

from sandbox.waiting import wait_for, wait_until
from tests.packaging.conftest import Fleet
from tests.packaging.hosts import (
    LOG,
    SYSCONFIG,
    UNIT,
    Host,
    await_boot,
    await_ready,
    install,
    use_engine,
)
from tests.readme import examples, steady
from tests.unit.test_environment_file import LINES


@pytest.fixture(scope="module")
def running(boot_host: Callable[..., Host]) -> Iterator[Host]:
    """A host where the service runs; each test leaves it running."""
    host = boot_host()
    try:
        install(host)
        use_engine(host)
        await_ready(host)
        yield host
    finally:
        host.container.remove(force=True)


@pytest.fixture
def app(fleet: Fleet, app_code: str) -> Iterator[str]:
    container = fleet.engine.run(f"{app_code}-1709878117")
    yield app_code
    container.remove(force=True)


def test_it_serves_checks(running: Host, app: str) -> None:
    answer = wait_until(
        lambda: running.ask(f"/apps/health/{app}"), lambda said: said["code"] == 0, "health"
    )

    assert answer["message"]["names"] == f"{app}-1709878117"


def test_the_documents_examples_of_an_installed_package(running: Host, fleet: Fleet) -> None:
    """Of those that change nothing; the engine here has other containers than theirs."""
    shown = [
        (command, printed)
        for command, printed in examples("en", "console")
        if command.startswith(("curl -s http://localhost:4246/", "container-healthcheck "))
    ]
    assert len(shown) >= 4
    names = ("bk_iam-1709878117", "bk_sops-1709878200")
    apps = [fleet.engine.run(name) for name in names]
    try:
        wait_for(lambda: running.ask("/apps/health/bk_sops")["code"] == 0, "health")
        for command, printed in shown:
            said = steady(running.run(command, check=False)).splitlines()
            words = [line.split() for line in said]
            for line in steady(printed).splitlines():
                assert line.split() in words, (command, line, said)
    finally:
        for each in apps:
            each.remove(force=True)


def test_the_command_line_means_the_service(running: Host, app: str) -> None:
    wait_for(lambda: running.ask(f"/apps/health/{app}")["code"] == 0, "health")

    running.run(f"echo CONTAINER_HEALTHCHECK_STATE_DIR=/srv/state >>{SYSCONFIG}")
    running.run(f"sed -i 's/-port 4246/-port 4247/' {SYSCONFIG}")
    running.run(f"mkdir -p /srv/state && systemctl restart {UNIT}")
    try:
        wait_for(lambda: running.ask("/ready", 4247), "the other port")
        said = running.run(f"container-healthcheck drain {app} --reason 'a test'")
        assert "the service at http://127.0.0.1:4247/container-healthcheck obeys it" in said
        assert running.exit_code(f"container-healthcheck check {app}") == 2
        assert "15" in running.run("container-healthcheck list", check=False)
        running.run(f"container-healthcheck undrain {app}")
        assert running.exit_code(f"container-healthcheck check {app}") == 0
    finally:
        running.run(f"sed -i 's/-port 4247/-port 4246/; /STATE_DIR=.srv/d' {SYSCONFIG}")
        running.run(f"systemctl restart {UNIT}")
        await_ready(running)


def test_systemd_reads_a_file_as_the_command_line_does(running: Host) -> None:
    running.run("rm -rf /srv/lines && mkdir /srv/lines")
    for number, (text, _) in enumerate(LINES):
        written = base64.b64encode(text.encode()).decode()
        running.run(f"echo {written} | base64 -d >/srv/lines/{number}")
        running.run(
            f"systemd-run -q --wait -p EnvironmentFile=/srv/lines/{number}"
            f" -p StandardOutput=file:/srv/lines/{number}.said printenv A"
        )
    said = running.run(
        "cd /srv/lines && for each in *.said; do echo $each; base64 $each; done"
    ).split()

    read = dict(zip(said[::2], map(base64.b64decode, said[1::2]), strict=True))
    assert read == {
        f"{number}.said": f"{value}\n".encode() for number, (_, value) in enumerate(LINES)
    }


def test_what_is_known_outlives_a_restart(running: Host, app: str) -> None:
    def known() -> float | None:
        apps = running.ask("/apps")["message"]
        since = [each["since"] for each in apps if (each["app_code"], each["code"]) == (app, 0)]
        return since[0] if since else None

    since = wait_until(known, bool, "since when the app is healthy")
    running.run(f"systemctl restart {UNIT}")
    await_ready(running)

    assert wait_until(known, bool, "the same after the restart") == since
    kept = running.run("stat -c '%U %n' /var/lib/container-healthcheck/*.jsonl").splitlines()
    assert len(kept) == 1
    assert kept[0].startswith("container-healthcheck ")


def test_systemd_analyze_is_content(running: Host) -> None:
    said = running.run(f"systemd-analyze verify {UNIT}.service 2>&1")
    # It says so of what is there for the systemd of CentOS 7, which knows no other limit.
    (line,) = said.splitlines()
    assert re.search(r"Unit uses MemoryLimit=; please use MemoryMax= instead", line)
    rated = running.run(f"systemd-analyze security --no-pager {UNIT}.service")
    exposure = re.search(r"Overall exposure level .*: ([0-9.]+)", rated)
    assert exposure is not None and float(exposure.group(1)) <= 3.0


def test_the_workers_may_open_many_files(running: Host) -> None:
    assert running.property("LimitNOFILE") == "65536"


def test_its_limits_leave_headroom(running: Host, app: str) -> None:
    """It may grow to four times of what it is. What it shares is counted more than once."""
    wait_for(lambda: running.ask(f"/apps/health/{app}")["code"] == 0, "health")
    processes = [f"/proc/{pid}" for pid in (running.property("MainPID"), *workers(running))]
    assert len(processes) == 3
    status = " ".join(f"{each}/status" for each in processes)
    sizes = re.findall(r"^VmRSS:\s+(\d+) kB$", running.run(f"cat {status}"), re.MULTILINE)
    assert 4 * 1024 * sum(map(int, sizes)) < int(running.property("MemoryMax")) == 1 << 30
    tasks = running.run(f"ls {' '.join(f'{each}/task' for each in processes)} | grep -c '^[0-9]'")
    assert 4 * int(tasks) < int(running.property("TasksMax")) == 512


def test_it_stops_and_starts_in_time(running: Host) -> None:
    url = "http://127.0.0.1:4246/container-healthcheck/apps/health"
    tag = running.run(f"curl -sI {url} | sed -n 's/^ETag: //Ip'")
    wait = f"curl -s -H 'If-None-Match: {tag}' -H 'Prefer: wait=25' {url} >/tmp/waited"
    running.run(f"({wait}) >/dev/null 2>&1 &")

    began = time.monotonic()
    running.run(f"systemctl stop {UNIT}")
    assert time.monotonic() - began < 5
    assert running.property("Result") == "success"
    assert running.ask("/health") is None
    running.run(f"systemctl start {UNIT}")
    assert running.ask("/health")["code"] == 0


def test_a_restart_loses_nothing(running: Host) -> None:
    with running.polled(5, "/health") as seen:
        running.run(f"systemctl restart {UNIT}")
        running.run(f"kill -KILL {running.property('MainPID')}")

    assert seen["lost"] == 0
    assert seen["codes"].keys() == {"0"}


def test_a_reload_loses_nothing(running: Host) -> None:
    before, master = workers(running), running.property("MainPID")

    with running.polled(5, "/health") as seen:
        running.run(f"systemctl reload {UNIT}")

    assert seen["lost"] == 0
    assert running.property("MainPID") == master
    assert not set(before) & set(workers(running))


def test_a_changed_address_is_obeyed(running: Host) -> None:
    running.run(f"sed -i 's/-port 4246/-port 4248/' {SYSCONFIG}; systemctl restart {UNIT}")
    try:
        wait_for(lambda: running.ask("/health", 4248), "the new port to answer")
        assert running.exit_code("curl -s 127.0.0.1:4246") == 7
    finally:
        running.run(f"sed -i 's/-port 4248/-port 4246/' {SYSCONFIG}; systemctl restart {UNIT}")
        await_ready(running)
    assert running.exit_code("curl -s 127.0.0.1:4248") == 7


def test_a_killed_worker_is_replaced(running: Host) -> None:
    master, (victim, *_) = running.property("MainPID"), workers(running)

    running.run(f"kill -KILL {victim}")

    def replaced() -> bool:
        return len(workers(running)) == 2 and victim not in workers(running)

    wait_for(replaced, "another worker")
    assert running.property("MainPID") == master
    await_ready(running)


def test_a_killed_master_comes_back(running: Host) -> None:
    master = running.property("MainPID")

    running.run(f"kill -KILL {master}")

    wait_for(lambda: running.property("MainPID") not in (master, "0"), "another master", 10)
    await_ready(running)


def test_it_outlives_docker(running: Host) -> None:
    unit = "[Service]\nExecStart=/bin/sleep infinity\n"
    running.run(f"printf '{unit}' >/run/systemd/system/docker.service; systemctl daemon-reload")
    running.run("systemctl start docker")
    master = running.property("MainPID")

    running.run("systemctl restart docker; systemctl stop docker")

    assert running.property("MainPID") == master
    assert host_order(running) == "docker.service"


def host_order(host: Host) -> str:
    return next(name for name in host.property("After").split() if name.startswith("docker"))


def test_it_comes_back_after_a_reboot(running: Host) -> None:
    running.container.restart(timeout=30)
    await_boot(running)

    wait_for(lambda: running.ask("/ready"), "the service after the boot")
    await_ready(running)


def test_logrotate_turns_the_logs(running: Host) -> None:
    running.run("logrotate -d /etc/logrotate.d/container-healthcheck 2>&1")
    running.run(f"rm -f {LOG}.1; logrotate -f /etc/logrotate.d/container-healthcheck")

    assert running.run(f"test -s {LOG}.1 && echo yes") == "yes"
    (victim, *_) = workers(running)
    running.run(f"kill -TERM {victim}")
    wait_for(lambda: victim in running.run(f"cat {LOG}", check=False), "lines in the new file")
    await_ready(running)


def test_rsyslog_takes_the_configuration(running: Host) -> None:
    said = running.run("rsyslogd -N1 2>&1")
    assert "container-healthcheck.conf" not in said and "error" not in said.lower()


# --- mistakes and missing things


def test_a_setting_with_a_typo_is_named_once(running: Host) -> None:
    restarts = running.property("NRestarts")
    running.run(f"echo CONTAINER_HEALTHCHECK_WORKRES=3 >>{SYSCONFIG}")
    count = len(running.journal())
    try:
        assert running.exit_code(f"systemctl restart {UNIT}") != 0
        line = complaint_since(running, count)
        assert "CONTAINER_HEALTHCHECK_WORKRES: no such setting: did you mean" in line
        assert running.property("ActiveState") == "failed"
        assert running.property("NRestarts") in ("0", restarts)
    finally:
        running.run(f"sed -i '/WORKRES/d' {SYSCONFIG}; systemctl restart {UNIT}")
        await_ready(running)


def test_a_flag_with_a_typo_is_named_once(running: Host) -> None:
    running.run(f"sed -i 's/-ngx-port/-nxg-port/' {SYSCONFIG}")
    count = len(running.journal())
    try:
        assert running.exit_code(f"systemctl restart {UNIT}") != 0
        line = complaint_since(running, count)
        assert "unrecognized arguments: -nxg-port 8010" in line
        assert running.property("ActiveState") == "failed"
    finally:
        running.run(f"sed -i 's/-nxg-port/-ngx-port/' {SYSCONFIG}; systemctl restart {UNIT}")
        await_ready(running)


def test_a_taken_port_is_waited_for_slowly(running: Host) -> None:
    running.run(f"systemctl stop {UNIT}")
    listener = (
        "perl -MIO::Socket::INET -e '"
        'push @kept, IO::Socket::INET->new(LocalAddr => "127.0.0.1", LocalPort => 4246,'
        " Listen => 1, ReuseAddr => 1); sleep 600'"
    )
    running.run(f"systemd-run --unit=taken {listener}")
    wait_for(lambda: running.exit_code("curl -s -m 1 127.0.0.1:4246") != 7, "the port to be taken")
    count = len(running.journal())
    began = time.monotonic()
    running.run(f"systemctl start --no-block {UNIT}")
    try:
        lines = wait_until(
            lambda: running.journal()[count:], lambda lines: len(lines) >= 3, "three attempts"
        )
        assert time.monotonic() - began >= 2 * (len(lines) - 1)
        assert all("another program listens there: stop it, or choose another" in x for x in lines)
    finally:
        running.run("systemctl stop taken")
    # Nobody has to start it again.
    await_ready(running)


def complaint_since(host: Host, count: int) -> str:
    """The only line after so many; one that is not in the state "failed" would be tried again."""
    wait_for(lambda: len(host.journal()) > count, "a complaint")
    assert host.property("ActiveState") == "failed"
    (line,) = host.journal()[count:]
    return line


def workers(host: Host) -> list[str]:
    master = host.property("MainPID")
    return host.run(f"cat /proc/{master}/task/{master}/children", check=False).split()
