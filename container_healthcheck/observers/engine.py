"""The Docker engine, through docker-py. The only module that imports it.

An Engine is one client: it belongs to one thread (or greenlet) at a time, connects at its first
question and not before, and after any EngineError a new one should be made, since the engine may
have been replaced by one that speaks another API version.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import docker
import docker.constants
import docker.errors
import docker.tls
import docker.types
import docker.utils
import requests

from container_healthcheck.model.container import Container, MalformedContainerError, from_listing
from container_healthcheck.model.verdict import Code, Fault
from container_healthcheck.settings import Settings

DEFAULT_ADDRESS = "unix:///var/run/docker.sock"
LONGEST_EVENT = 1 << 20

# What can change a container's name, state or health. Filtering at the engine keeps out the flood
# of exec_* events that HEALTHCHECKs make.
_ACTIONS = (
    "create",
    "destroy",
    "die",
    "health_status",
    "pause",
    "rename",
    "restart",
    "start",
    "stop",
    "unpause",
    "update",
)

Bounded = Callable[[float], AbstractContextManager[object]]
"""Makes a context that raises TimeoutError inside its block after so many seconds."""


def _unbounded(_: float) -> AbstractContextManager[None]:
    return nullcontext()


class EngineError(Exception):
    """The engine did not give what was asked. `fault` says it in the operator's words."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.text)
        self.fault = fault


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened to a container. `time` is the engine's clock, in nanoseconds."""

    container_id: str
    action: str
    time: int
    attributes: Mapping[str, str]


class Engine:
    """One client of the engine the settings name.

    A question takes at most `timeout` seconds (by default the settings' `docker_timeout`).
    `bounded` limits it as a whole, where docker-py's own time-out limits each socket operation: an
    engine that sends a byte now and then would never be given up.
    """

    def __init__(
        self, settings: Settings, *, timeout: float | None = None, bounded: Bounded | None = None
    ) -> None:
        self._settings = settings
        self._timeout = timeout or settings.docker_timeout
        self._bounded = bounded or _unbounded
        self._client: docker.DockerClient | None = None

    @property
    def address(self) -> str:
        """Where the engine is looked for."""
        return self._settings.docker_host or DEFAULT_ADDRESS

    def containers(
        self, *, ids: Sequence[str] = (), name_prefix: str | None = None
    ) -> list[Container]:
        """The containers, stopped ones included; only some of them when `ids` or a prefix is given.

        `name_prefix` is a regular expression for the beginning of the name. Raises EngineError.
        """
        filters: dict[str, Any] = {}
        if ids:
            filters["id"] = list(ids)
        if name_prefix is not None:
            filters["name"] = f"^/?{name_prefix}"
        try:
            with self._bounded(self._timeout):
                listed = self._connected().containers.list(all=True, sparse=True, filters=filters)
                found = [from_listing(container.attrs) for container in listed]
        except Exception as error:
            self._fail(error)
        return [container for container in found if container is not None]

    def subscribe(self, since: str | None = None) -> EventStream:
        """The stream of what happens to containers from now on, or from `since` (engine time).

        Raises EngineError.
        """
        filters = {"type": "container", "event": list(_ACTIONS)}
        try:
            with self._bounded(self._timeout):
                stream: Any = self._connected().events(since=since, filters=filters)  # type: ignore[arg-type]
        except Exception as error:
            self._fail(error)
        return EventStream(stream, self._fail)

    def close(self) -> None:
        """Closes the connections."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _connected(self) -> docker.DockerClient:
        if self._client is None:
            # With version="auto" docker-py asks while it makes the client, and leaks the client's
            # connections when that fails.
            self._client = self._make_client(docker.constants.MINIMUM_DOCKER_API_VERSION)
            spoken = self._client.api.version(api_version=False)["ApiVersion"]
            self.close()
            self._client = self._make_client(spoken)
        return self._client

    def _make_client(self, version: str) -> docker.DockerClient:
        client = docker.DockerClient(**self._client_options(), version=version)
        # No proxy and no .netrc stands between this host and its own engine.
        client.api.trust_env = False
        return client

    def _client_options(self) -> dict[str, Any]:
        environment = {"DOCKER_HOST": self.address}
        if self._settings.docker_tls_verify:
            environment["DOCKER_TLS_VERIFY"] = "1"
        else:
            environment["DOCKER_TLS_VERIFY"] = ""
        environment["DOCKER_CERT_PATH"] = self._settings.docker_cert_path
        options = docker.utils.kwargs_from_env(environment=environment)
        return {**options, "timeout": self._timeout}

    def _fail(self, error: Exception) -> NoReturn:
        self.close()
        raise EngineError(explain(error, self.address)) from error


class _Chunks(Protocol):
    """docker-py's CancellableStream, whose items are bytes when it does not decode."""

    def __iter__(self) -> Iterator[bytes]: ...

    def close(self) -> None:
        """Shuts the connection down."""


class EventStream:
    """Container events as they come. Iterating blocks; `close` from elsewhere ends it."""

    def __init__(self, chunks: _Chunks, fail: Callable[[Exception], NoReturn]) -> None:
        self._chunks = chunks
        self._fail = fail

    def __iter__(self) -> Iterator[Event]:
        """The events. Raises EngineError when the engine ends the stream or sends garbage."""
        try:
            for line in _lines(self._chunks):
                yield _event(line)
            raise ConnectionResetError("the event stream ended")
        except EngineError:
            raise
        except Exception as error:
            self._fail(error)

    def close(self) -> None:
        """Ends the stream, whoever is reading it."""
        try:
            self._chunks.close()
        except (AttributeError, OSError):
            # docker-py reaches for a socket that may be gone already.
            pass


# A frozen engine's full queue of connections shows as BlockingIOError.
_HUNG = (TimeoutError, BlockingIOError, requests.Timeout)


def explain(error: BaseException, address: str) -> Fault:
    """What an exception of the engine's client means for an operator."""
    causes = list(_causes(error))
    if any(isinstance(cause, _HUNG) for cause in causes):
        return Fault(
            Code.ENGINE_FAULTY, f"Docker at {address} does not answer in time: is it hung?"
        )
    if any(isinstance(cause, ConnectionResetError | BrokenPipeError) for cause in causes):
        return Fault(Code.ENGINE_FAULTY, f"Docker at {address} broke the connection")
    advice = next(filter(None, map(_connection_advice, causes)), None)
    if advice is not None:
        return Fault(Code.ENGINE_UNREACHABLE, f"cannot connect to Docker at {address}: {advice}")
    detail = " ".join(str(error).split())[:300]
    return Fault(Code.ENGINE_FAULTY, f"Docker at {address} does not answer properly: {detail}")


def _connection_advice(error: BaseException) -> str | None:
    if isinstance(error, FileNotFoundError):
        return "no such socket: start dockerd, or set DOCKER_HOST to where it listens"
    if isinstance(error, PermissionError):
        return "not permitted: run the service as a member of the socket's group (docker)"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused: start dockerd"
    if isinstance(error, docker.errors.TLSParameterError):
        return "TLS: DOCKER_CERT_PATH must name a folder with ca.pem, cert.pem and key.pem"
    if isinstance(error, requests.exceptions.SSLError):
        # What it wraps says what is the matter, without the way there.
        *_, innermost = _causes(error)
        return f"TLS: {' '.join(str(innermost).split())[:200]}; see DOCKER_CERT_PATH"
    # An error of requests is an OSError as well, with a sentence for its number.
    if isinstance(error, OSError) and isinstance(error.errno, int):
        return f"{error.strerror}: see DOCKER_HOST"
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and everything it wraps: requests and urllib3 put causes into args and reason."""
    seen: set[int] = set()
    todo = [error]
    while todo:
        current = todo.pop(0)
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        linked = (current.__cause__, current.__context__, getattr(current, "reason", None))
        todo.extend(each for each in (*linked, *current.args) if isinstance(each, BaseException))


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    buffered = b""
    for chunk in chunks:
        buffered += chunk
        *lines, buffered = buffered.split(b"\n")
        yield from filter(None, map(bytes.strip, lines))
        if len(buffered) > LONGEST_EVENT:
            raise MalformedContainerError(f"an event of more than {LONGEST_EVENT} bytes")


def _event(line: bytes) -> Event:
    try:
        fields = json.loads(line)
        actor = fields["Actor"]
        return Event(
            str(actor["ID"]),
            str(fields["Action"]),
            int(fields.get("timeNano") or 0),
            {str(name): str(value) for name, value in (actor.get("Attributes") or {}).items()},
        )
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(f"not an event: {line[:80]!r}") from error
