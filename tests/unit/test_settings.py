"""The settings: what is allowed, and what is said of the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from container_healthcheck.parsing import parse_service_url
from container_healthcheck.settings import (
    Settings,
    SettingsError,
    documented_settings,
    environment_name,
    shown,
)


def settings(**values: str) -> Settings:
    return Settings.from_environment(
        {environment_name(name): text for name, text in values.items()}
    )


def test_the_defaults_are_those_of_the_contract() -> None:
    defaults = Settings.from_environment({})

    assert {each.name: shown(getattr(defaults, each.name)) for each in documented_settings()} == {
        "bind": "127.0.0.1:4246",
        "prefix": "/container-healthcheck",
        "workers": "2",
        "docker_timeout": "3",
        "resync_interval": "10",
        "stale_after": "15",
        "name_pattern": r"{app_code}(-\d+|\d{10})?",
        "probe_url": "empty",
        "probe_interval": "5",
        "probe_timeout": "3",
        "probe_fall": "2",
        "probe_rise": "1",
        "probe_paths": "empty",
        "state_dir": "/var/lib/container-healthcheck",
        "log_level": "info",
        "log_dir": "empty",
    }


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("bind", "0.0.0.0:80", "0.0.0.0:80"),
        ("bind", "[::1]:4246", "[::1]:4246"),
        ("bind", "localhost:65535", "localhost:65535"),
        ("prefix", "/", ""),
        ("prefix", "/a/b/", "/a/b"),
        ("workers", "64", "64"),
        ("docker_timeout", "0.5", "0.5"),
        ("log_level", "warn", "warning"),
        ("log_level", "DEBUG", "debug"),
        ("log_dir", "", "None"),
        ("log_dir", "/var/log/x", "/var/log/x"),
        ("state_dir", "/srv/x", "/srv/x"),
        ("probe_url", "", ""),
        ("probe_url", "http://[::1]:80/o/{app_code}", "http://[::1]:80/o/{app_code}"),
        ("probe_paths", "a=/x?y=1, b=-,", "{'a': '/x?y=1', 'b': '-'}"),
    ],
)
def test_good_values_are_taken(name: str, text: str, value: str) -> None:
    assert str(getattr(settings(**{name: text}), name)) == value


@pytest.mark.parametrize(
    ("name", "text", "allowed"),
    [
        ("bind", "", "host:port"),
        ("bind", "4246", "host:port"),
        ("bind", ":4246", "host:port"),
        ("bind", "127.0.0.1:0", "from 1 to 65535"),
        ("bind", "127.0.0.1:65536", "from 1 to 65535"),
        ("bind", "127.0.0.1:http", "from 1 to 65535"),
        ("bind", "::1:4246", "host:port"),
        ("bind", "[nonsense]:4246", "host:port"),
        ("bind", "a b:4246", "host:port"),
        ("bind", "a..b:4246", "host:port"),
        ("bind", "a" * 64 + ":4246", "host:port"),
        ("probe_url", "http://a..b/{app_code}", "http://"),
        ("prefix", "", "a path"),
        ("prefix", "no-slash", "a path"),
        ("prefix", "/a//b", "a path"),
        ("prefix", "/<x>", "a path"),
        ("workers", "0", "from 1 to 64"),
        ("workers", "65", "from 1 to 64"),
        ("workers", "-1", "from 1 to 64"),
        ("workers", "two", "from 1 to 64"),
        ("workers", "٢", "from 1 to 64"),
        ("workers", "9" * 5000, "from 1 to 64"),
        ("docker_timeout", "nan", "from 0.1 to 60"),
        ("docker_timeout", "inf", "from 0.1 to 60"),
        ("docker_timeout", "3s", "from 0.1 to 60"),
        ("stale_after", "12", "at least RESYNC_INTERVAL + DOCKER_TIMEOUT, 13"),
        ("name_pattern", "x", "exactly once"),
        (
            "name_pattern",
            "{app_code}[[a]",
            "possible nested set at position 1 after {app_code}: put a",
        ),
        ("probe_url", "https://127.0.0.1/{app_code}", "http://"),
        ("probe_url", "http://127.0.0.1/", "{app_code}"),
        ("probe_url", "http://{app_code}/", "{app_code}"),
        ("probe_url", "http:///o/{app_code}", "http://"),
        ("probe_url", "http://127.0.0.1:0/{app_code}", "http://"),
        ("probe_url", "http://127.0.0.1:65536/{app_code}", "allowed is an http:// address"),
        ("probe_url", "http://127.0.0.1:x/{app_code}", "allowed is an http:// address"),
        ("probe_url", "http://[::1/{app_code}", "allowed is an http:// address"),
        ("probe_url", "http://127.0.0.1/{app_code} x", "http://"),
        ("probe_paths", "a", "app_code=/path"),
        ("probe_paths", "a=x", "app_code=/path"),
        ("probe_paths", "../a=/x", "app_code=/path"),
        ("probe_paths", "a=/x y", "app_code=/path"),
        ("probe_fall", "0", "from 1 to 100"),
        ("state_dir", "relative", "absolute path"),
        ("state_dir", "", "absolute path"),
        ("log_level", "loud", "critical, debug, error, info, warn, warning"),
        ("log_dir", "relative", "absolute path"),
    ],
)
def test_bad_values_are_refused_in_one_line(name: str, text: str, allowed: str) -> None:
    with pytest.raises(SettingsError) as raised:
        settings(**{name: text})

    said = str(raised.value)
    assert said.startswith(f"CONTAINER_HEALTHCHECK_{name.upper()}: ")
    assert " is not allowed: " in said
    assert allowed in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("CONTAINER_HEALTHCHECK_PROB_URL", "did you mean CONTAINER_HEALTHCHECK_PROBE_URL?"),
        ("CONTAINER_HEALTHCHECK_XYZZY", "there are BIND, PREFIX, "),
    ],
)
def test_a_name_that_does_not_exist_is_refused(name: str, hint: str) -> None:
    with pytest.raises(SettingsError) as raised:
        Settings.from_environment({name: "x"})

    assert f"{name}: no such setting" in str(raised.value)
    assert hint in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "ssh://host",
        "/var/run/docker.sock",
        "unix://",
        "unix://relative",
        "tcp:host",
        "tcp://127.0.0.1",
        "tcp://:2375",
        "tcp://127.0.0.1:99999",
        "tcp://[::1",
        "http://a b:1",
    ],
)
def test_a_bad_engine_address_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match=r"DOCKER_HOST: .* is not allowed"):
        Settings.from_environment({"DOCKER_HOST": url})


@pytest.mark.parametrize("host", ["appo_1", "appo-1.example.", "10.0.0.1", "[::1]"])
def test_a_service_may_be_asked_by_any_name_of_its_host(host: str) -> None:
    url = f"http://{host}:4246/container-healthcheck"

    assert parse_service_url(url) == url


def test_the_engine_is_found_by_dockers_own_variables() -> None:
    found = Settings.from_environment(
        {
            "DOCKER_HOST": "tcp://10.0.0.1:2376",
            "DOCKER_TLS_VERIFY": "1",
            "DOCKER_CERT_PATH": "/certs",
            "UNRELATED": "x",
        }
    )

    assert found.docker_host == "tcp://10.0.0.1:2376"
    assert found.docker_tls_verify
    assert found.docker_cert_path == "/certs"


def test_each_app_has_its_probe() -> None:
    found = settings(
        probe_url="http://127.0.0.1:8010/o/{app_code}/?x=1", probe_paths="a=/o/a/healthz?deep=1,b=-"
    )

    assert found.probe_target("bk_iam") == "http://127.0.0.1:8010/o/bk_iam/?x=1"
    assert found.probe_target("a") == "http://127.0.0.1:8010/o/a/healthz?deep=1"
    assert found.probe_target("b") is None
    assert Settings().probe_target("a") is None


def test_a_folder_is_a_path() -> None:
    assert Settings().state_dir == Path("/var/lib/container-healthcheck")
