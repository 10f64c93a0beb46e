"""The sheet: the latest probe of each app, written by the worker that asks and read by all.

Other than the ledger it is read only when somebody wants to see it: a probe that changes nothing is
no news, and yet people and monitoring systems ask when it was and how long it took.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

from container_healthcheck.model.probes import LastProbe
from container_healthcheck.observers.file_lock import FileBusyError, locked


class Sheet:
    """Shares `file`, a descriptor of an empty file at first, with the other workers."""

    def __init__(self, file: int) -> None:
        self._file = file

    def write(self, probes: Mapping[str, LastProbe]) -> None:
        """Puts these in place of all. Raises FileBusyError, or OSError where there is no room."""
        text = json.dumps(probes, separators=(",", ":")).encode()
        with locked(self._file):
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, text, 0)

    def read(self) -> dict[str, LastProbe]:
        """What was written last; nothing where that cannot be seen now."""
        try:
            with locked(self._file, shared=True):
                text = os.pread(self._file, os.fstat(self._file).st_size, 0)
            return {code: LastProbe(*fields) for code, fields in json.loads(text or b"{}").items()}
        except (FileBusyError, OSError, ValueError):
            return {}
