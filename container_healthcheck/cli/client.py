"""Asks a running service, for the command line."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from container_healthcheck.settings import Settings

_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class ServiceError(Exception):
    """The service did not answer, or not as this service does. The text says what to do."""


def service_url(settings: Settings) -> str:
    """Where the service of these settings answers on this host."""
    host = _ANY_ADDRESS.get(settings.bind.host, settings.bind.host)
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{settings.bind.port}{settings.prefix}"


def ask(
    base_url: str, path: str, timeout: float, query: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The envelope that the service at `base_url` answers to `path` with this `query`.

    `base_url` is what `parse_service_url` takes; `timeout` is in seconds. Raises ServiceError.
    """
    url = base_url.rstrip("/") + quote(path)
    parts = urlsplit(url)
    target = f"{parts.path}?{urlencode(query)}" if query else parts.path
    try:
        connection = http.client.HTTPConnection(
            parts.hostname or "", parts.port or 80, timeout=timeout
        )
        try:
            connection.request("GET", target)
            answer = json.loads(connection.getresponse().read())
        finally:
            connection.close()
    except OSError as error:
        raise ServiceError(
            f"no answer from {url}: {error.strerror or error}: is the service running, and is its"
            " address given with --url or CONTAINER_HEALTHCHECK_BIND?"
        ) from error
    except (http.client.HTTPException, ValueError) as error:
        raise ServiceError(f"what answers at {url} is not this service: {error!r}") from error
    if not isinstance(answer, dict) or not {"code", "status", "message"} <= answer.keys():
        raise ServiceError(f"what answers at {url} is not this service")
    return answer
