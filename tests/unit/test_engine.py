"""What the engine's errors mean, and how its events are read."""

from __future__ import annotations

import json
from collections.abc import Iterator

import docker.errors
import pytest
import requests

from container_healthcheck.observers.engine import (
    LONGEST_EVENT,
    Engine,
    EngineError,
    Event,
    EventStream,
    explain,
)
from container_healthcheck.settings import Settings

ADDRESS = "unix:///var/run/docker.sock"


def wrapped(cause: Exception) -> Exception:
    """The way requests and docker-py hand a cause on."""
    inner = requests.ConnectionError("Connection aborted.", cause)
    outer = docker.errors.DockerException(f"Error while fetching server API version: {inner}")
    outer.__cause__ = inner
    return outer


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (wrapped(FileNotFoundError(2, "No such file")), 10, "no such socket: start dockerd"),
        (wrapped(PermissionError(13, "Permission denied")), 10, "member of the socket's group"),
        (wrapped(ConnectionRefusedError(111, "refused")), 10, "connection refused: start dockerd"),
        (wrapped(OSError(113, "No route to host")), 10, "No route to host: see DOCKER_HOST"),
        (docker.errors.TLSParameterError("no ca.pem"), 10, "with ca.pem, cert.pem and key.pem"),
        (requests.exceptions.SSLError("bad\ncertificate"), 10, "TLS: bad certificate"),
        (TimeoutError("not done within 3 s"), 11, "does not answer in time"),
        (requests.ReadTimeout("Read timed out."), 11, "does not answer in time"),
        (requests.ConnectTimeout("timed out"), 11, "does not answer in time"),
        (wrapped(BlockingIOError(11, "try again")), 11, "does not answer in time"),
        (wrapped(ConnectionResetError(104, "reset")), 11, "broke the connection"),
        (docker.errors.APIError("500 Server Error"), 11, "does not answer properly: 500 Server"),
        (ValueError("not\n JSON"), 11, "does not answer properly: not JSON"),
    ],
)
def test_an_error_is_explained_to_the_operator(error: Exception, code: int, said: str) -> None:
    fault = explain(error, ADDRESS)

    assert fault.code == code
    assert said in fault.text
    assert ADDRESS in fault.text
    assert "\n" not in fault.text


def test_the_explanation_ends_when_causes_go_round() -> None:
    error = ValueError("a")
    error.__cause__ = ValueError("b")
    error.__cause__.__cause__ = error

    assert explain(error, ADDRESS).code == 11


class Chunks:
    """A stream of prepared chunks, as docker-py's CancellableStream gives them."""

    def __init__(self, *chunks: bytes) -> None:
        self._chunks = chunks

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._chunks)

    def close(self) -> None:
        raise AttributeError("the socket is gone")


def event(action: str = "die", time: int = 7) -> bytes:
    fields = {"Type": "container", "Action": action, "Actor": {"ID": "1"}, "timeNano": time}
    return json.dumps(fields).encode() + b"\n"


def read(*chunks: bytes) -> tuple[list[Event], str]:
    """The events of a stream, and how it ended."""
    found = []
    stream = EventStream(Chunks(*chunks), Engine(Settings())._fail)
    with pytest.raises(EngineError) as raised:  # noqa: PT012
        for each in stream:
            found.append(each)
    stream.close()
    return found, raised.value.fault.text


def test_events_are_read_however_they_are_cut() -> None:
    text = event("die", 1) + b"\n" + event("start", 2)

    for size in range(1, len(text) + 1):
        chunks = [text[start : start + size] for start in range(0, len(text), size)]
        found, end = read(*chunks)
        assert found == [Event("1", "die", 1, {}), Event("1", "start", 2, {})]
        assert "broke the connection" in end


@pytest.mark.parametrize(
    "garbage",
    [
        b"no JSON\n",
        b"[]\n",
        b"{}\n",
        b'{"Action":"die","Actor":null}\n',
        b'{"Action":"die","Actor":{"ID":"1","Attributes":7}}\n',
        b'{"Action":"die","Actor":{"ID":"1"},"timeNano":"x"}\n',
        b"\xff\xfe\n",
        b"[" * 100_000 + b"\n",
        b"x" * (LONGEST_EVENT + 1),
    ],
)
def test_garbage_ends_the_stream_with_a_fault(garbage: bytes) -> None:
    found, end = read(event(), garbage, event())

    assert found == [Event("1", "die", 7, {})]
    assert "does not answer properly" in end


def test_an_event_without_a_time_is_taken() -> None:
    found, _ = read(b'{"Action":"die","Actor":{"ID":"1"}}\n')

    assert found == [Event("1", "die", 0, {})]
