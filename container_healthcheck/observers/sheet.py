"""The sheet: the latest probe of each app, written by the worker that asks and read by all.

Other than the ledger it is read only when somebody wants to see it: a probe that changes nothing is
no news, and yet people and monitoring systems ask when it was and how long it took.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import astuple

from container_healthcheck.model.probes import LastProbe


class Sheet:
    """Shares `file`, a descriptor of an empty file at first, with the other workers."""

    def __init__(self, file: int) -> None:
        self._file = file

    def write(self, probes: Mapping[str, LastProbe]) -> None:
        """Puts these in place of all. Raises OSError when that cannot be done now."""
        text = json.dumps(
            {app_code: astuple(each) for app_code, each in probes.items()}, separators=(",", ":")
        ).encode()
        fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, text, 0)
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)

    def read(self) -> dict[str, LastProbe]:
        """What was written last; nothing where that cannot be seen now."""
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                text = os.pread(self._file, os.fstat(self._file).st_size, 0)
            finally:
                fcntl.lockf(self._file, fcntl.LOCK_UN)
            return {code: LastProbe(*fields) for code, fields in json.loads(text or b"{}").items()}
        except (OSError, ValueError):
            return {}
