"""On fresh hosts with systemd: install, upgrade, roll back and remove.

All hosts share one network, so there is only one at a time.
"""

from __future__ import annotations

from container_healthcheck import __version__
from sandbox.waiting import wait_for
from tests.packaging.hosts import (
    LOG,
    LONGEST_GAP,
    SYSCONFIG,
    UNIT,
    Host,
    await_ready,
    install,
    use_engine,
)


def test_one_command_gives_a_running_service(host: Host) -> None:
    install(host)

    assert host.run(f"systemctl is-active {UNIT}") == "active"
    assert host.run(f"systemctl is-enabled {UNIT}") == "enabled"
    assert "docker" in host.run(f"id -Gn {UNIT}").split()
    assert host.run(f"getent passwd {UNIT}").endswith("nologin")
    assert host.ask("/health")["code"] == 0
    # The Docker of this host is missing, and the journal has one line that says what to do.
    wait_for(lambda: host.journal(), "a line in the journal")
    (line,) = host.journal()
    assert "no such socket: start dockerd, or set DOCKER_HOST" in line
    console = "/var/log/container-healthcheck/console.log"
    wait_for(lambda: line in host.run(f"cat {console}", check=False), "rsyslog to have written it")


def test_a_socket_that_is_not_permitted_is_explained(groupless: Host) -> None:
    install(groupless)
    use_engine(groupless)

    def refused() -> bool:
        return any("not permitted: run the service as a member" in x for x in groupless.journal())

    wait_for(refused, "the line in the journal")
    assert groupless.property("ActiveState") == "active"
    assert groupless.ask("/ready")["code"] == 10


def test_it_needs_neither_rsyslog_nor_logrotate(host: Host) -> None:
    host.run("dpkg --purge rsyslog logrotate")

    install(host)

    assert host.ask("/health")["code"] == 0
    assert host.property("ActiveState") == "active"


def test_an_upgrade_restarts_it_and_keeps_the_settings(host: Host) -> None:
    install(host)
    use_engine(host)
    await_ready(host)
    master, kept = host.property("MainPID"), host.run(f"cat {SYSCONFIG}")
    host.run("container-healthcheck drain some_app --reason kept")

    with host.polled(12, "/health") as seen:
        install(host, "next")

    assert seen["lost"] < LONGEST_GAP
    assert host.property("MainPID") != master
    assert host.run(f"cat {SYSCONFIG}") == kept
    assert host.run(f"systemctl is-enabled {UNIT}") == "enabled"
    assert host.ask("/apps/health/some_app")["code"] == 15
    # And back again.
    master = host.property("MainPID")
    install(host)
    assert host.run("rpm -q container-healthcheck").startswith(f"{UNIT}-{__version__}-1")
    assert host.property("MainPID") != master
    assert host.run(f"cat {SYSCONFIG}") == kept
    await_ready(host)


def test_an_upgrade_leaves_a_stopped_service_stopped(host: Host) -> None:
    install(host)
    host.run(f"systemctl -q disable {UNIT}; systemctl stop {UNIT}")

    install(host, "next")

    assert host.property("ActiveState") == "inactive"
    assert host.exit_code(f"systemctl -q is-enabled {UNIT}") != 0


def test_an_upgrade_from_the_go_tool_obeys_its_flags(host: Host) -> None:
    install(host, "go")
    host.run("mkdir -p /data/logs")
    opts = "OPTS=' -level debug -prefix /hc -port 4300 -ngx-port 8010 -logpath /data/logs'"
    host.run(f'echo "{opts}" >{SYSCONFIG}; systemctl enable -q {UNIT}; systemctl start {UNIT}')
    wait_for(lambda: host.ask("/", 4300) == "go", "the Go tool to answer")

    install(host)

    wait_for(lambda: host.ask("/health", 4300, "/hc"), "the port to answer again")
    assert host.ask("/health", 4300, "/hc")["message"] == "i'm healthy"
    assert host.run(f"cat {SYSCONFIG}") == opts
    assert host.exit_code("test -e /usr/local/bin/container-healthcheck") == 1
    assert "Listening at" in host.run("cat /data/logs/container-healthcheck.log")
    assert host.run(f"systemctl is-enabled {UNIT}") == "enabled"
    assert "perl" not in host.run("cat /proc/[0-9]*/comm")


def test_an_upgrade_from_an_untouched_go_tool_brings_the_new_settings(host: Host) -> None:
    install(host, "go")
    host.run(f"systemctl start {UNIT}")
    wait_for(lambda: host.ask("/") == "go", "the Go tool to answer")

    install(host)

    wait_for(lambda: host.ask("/health"), "the port to answer again")
    assert "#CONTAINER_HEALTHCHECK_BIND=" in host.run(f"cat {SYSCONFIG}")
    # The Go tool's log, root's, goes on being written.
    assert host.run(f"stat -c %U {LOG}") == UNIT
    assert host.run(f"head -n 1 {LOG}") == "go"


def test_the_way_back_to_the_go_tool(host: Host) -> None:
    install(host, "go")
    host.run(f"systemctl enable -q {UNIT}; systemctl start {UNIT}")
    install(host)

    install(host, "go")

    wait_for(lambda: host.ask("/") == "go", "the Go tool to answer again")
    assert host.run(f"systemctl is-enabled {UNIT}") == "enabled"
    assert host.exit_code("test -e /opt/container-healthcheck") == 1


def test_removal_leaves_what_is_the_users(host: Host) -> None:
    """Edited settings, logs, drain marks, and the user that they belong to."""
    before = set(every_file(host))
    install(host)
    use_engine(host)
    await_ready(host)
    host.run("container-healthcheck drain --all --reason 'a new disk'")
    logged = host.run(f"head -n 1 {LOG}")

    said = host.run("rpm -e container-healthcheck 2>&1")

    # Debian's rpm has something to say of itself before.
    (warning,) = (line for line in said.splitlines() if not line.startswith("rpm: "))
    assert warning == f"warning: {SYSCONFIG} saved as {SYSCONFIG}.rpmsave"
    left = set(every_file(host)) - before
    found = {name for name in left if "container-healthcheck" in name}
    kept = ("/var/log/container-healthcheck", "/var/lib/container-healthcheck")
    assert {name for name in found if not name.startswith(kept)} == {f"{SYSCONFIG}.rpmsave"}
    assert host.run(f"head -n 1 {LOG}") == logged
    assert host.run(f"stat -c %U {LOG} /var/lib/container-healthcheck").split() == [UNIT, UNIT]
    assert host.ask("/health") is None
    assert "container-healthcheck" not in host.run("systemctl list-units --all --no-pager")

    # So the next installation undrains nothing.
    install(host)
    use_engine(host)
    await_ready(host)
    answer = host.ask("/apps/health/bk_iam")
    assert answer["code"] == 15 and "a new disk" in answer["message"]


def every_file(host: Host) -> list[str]:
    return host.run("find / -xdev -not -path '/proc/*' -not -path '/sys/*'").splitlines()
