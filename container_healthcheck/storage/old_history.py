"""The history that version 2.1.0 has kept, for the first start of a later version."""

from __future__ import annotations

import json
from pathlib import Path

from container_healthcheck.model.history import History


def paths(folder: Path, address: str) -> tuple[Path, Path]:
    """The file of the history, and the file of what the probes saw, which is not read."""
    return folder / f"history-{address}.json", folder / f"serving-{address}.json"


def load(path: Path) -> History | None:
    """The history in 2.1.0's file, or None where there is none.

    Raises OSError, and ValueError for what 2.1.0 would not have written.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        known = json.loads(text)["known"]
        # There each change began with the name of its kind.
        changes = [fields for _, *fields in known["changes"]]
        return History.from_json({"counts": {}, **known, "changes": changes}).before_start()
    except (KeyError, RecursionError, TypeError) as error:
        raise ValueError(f"not a history of 2.1.0: {error!r}") from error
