"""The sheet: what only the worker that leads sees, shown to all.

Other than the ledger it is read only when somebody wants to see it: a probe that changes nothing is
no news, and yet people and monitoring systems ask when it was and how long it took. It is also what
every worker tells of probes and events counted, so that their counters are the same.

A new text is written beside the one before, and then the header points to it: whoever is killed
while writing has changed nothing, and the next lead counts on from there.
"""

from __future__ import annotations

import json
import os
import struct

from container_healthcheck.model.probes import LastProbe, Observed
from container_healthcheck.observers.file_lock import FileBusyError, locked
from container_healthcheck.observers.text_file import place_beside, write_at

# Where the text begins, and how long it is.
_HEADER = struct.Struct("=QQ")


class Sheet:
    """Shares `file`, a descriptor of an empty file at first, with the other workers."""

    def __init__(self, file: int) -> None:
        self._file = file

    def write(self, observed: Observed) -> None:
        """Puts this in place of all. Raises FileBusyError, or OSError where there is no room."""
        text = json.dumps(observed, separators=(",", ":")).encode()
        with locked(self._file):
            start, length = self._place()
            place = place_beside(_HEADER.size, start, start + length, len(text))
            write_at(self._file, text, place)
            os.pwrite(self._file, _HEADER.pack(place, len(text)), 0)

    def read(self) -> Observed:
        """What was written last; nothing where that cannot be seen now."""
        try:
            with locked(self._file, shared=True):
                start, length = self._place()
                text = os.pread(self._file, length, start)
            if not text:
                return Observed()
            probes, failures, events = json.loads(text)
            return Observed(
                {app_code: LastProbe(*fields) for app_code, fields in probes.items()},
                failures,
                events,
            )
        except (AttributeError, FileBusyError, OSError, OverflowError, TypeError, ValueError):
            return Observed()

    def _place(self) -> tuple[int, int]:
        head = os.pread(self._file, _HEADER.size, 0)
        return _HEADER.unpack(head) if len(head) == _HEADER.size else (_HEADER.size, 0)
