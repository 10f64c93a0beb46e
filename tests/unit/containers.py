"""Containers for the tests of the pure parts."""

from __future__ import annotations

from typing import Any

from container_healthcheck.model.container import Container
from container_healthcheck.model.names import NamePattern

PATTERN = NamePattern(r"{app_code}(-\d+|\d{10})?")


def container(name: str = "bk_iam-1709878117", **fields: Any) -> Container:
    """A running container, but for the fields given."""
    defaults: dict[str, Any] = {
        "id": f"id of {name}",
        "name": name,
        "image": "python36e:1.1",
        "command": "sh /build/builder",
        "created": 1709878119,
        "state": "running",
        "status": "Up 5 days",
        "health": "",
        "ports": [],
    }
    return Container(**{**defaults, **fields})


def entry(name: str = "bk_iam-1709878117", **fields: Any) -> dict[str, Any]:
    """An entry of the engine's list, as API 1.39 and later give it."""
    return {
        "Id": "037dbe46cd" + "0" * 54,
        "Names": [f"/{name}"],
        "Image": "python36e:1.1",
        "ImageID": "sha256:0",
        "Command": "sh /build/builder",
        "Created": 1709878119,
        "Ports": [],
        "Labels": {},
        "State": "running",
        "Status": "Up 5 days",
        **fields,
    }
