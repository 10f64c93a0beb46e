"""The ledger: what the workers of one master tell each other, in an order that all agree on.

It is a file without a name (in memory, where there is such a place) that the master opens before it
forks: it outlives every worker and needs no disk. Whoever writes or reads holds its lock. What a
writer had not finished when it died lies behind the noted end, and nobody reads it.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterable
from contextlib import AbstractContextManager

from container_healthcheck.model.records import Record, from_json, to_json
from container_healthcheck.observers.file_lock import locked

LARGEST = 1 << 20
"""From this size on, in bytes, the ledger should be written anew."""

# The generation (it counts how often the ledger was written anew), and where the records end.
_HEADER = struct.Struct("=QQ")


class Ledger:
    """One reader and writer. All of them share `file`, a descriptor of an empty file at first."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._head = (0, 0)
        self._read_to = _HEADER.size

    def locked(self) -> AbstractContextManager[None]:
        """Keeps all others from reading and writing. Raises FileBusyError."""
        return locked(self._file)

    @property
    def is_empty(self) -> bool:
        """True as long as nobody has written."""
        return self._end()[1] <= _HEADER.size

    @property
    def size(self) -> int:
        """In bytes."""
        return self._end()[1]

    def has_news(self) -> bool:
        """True when there may be something to read; costs next to nothing, and takes no lock."""
        return self._end() != self._head

    def read(self) -> list[Record]:
        """The records since the last call, or all of a ledger written anew; under the lock."""
        generation, end = self._end()
        if generation != self._head[0]:
            self._read_to = _HEADER.size
        text = os.pread(self._file, end - self._read_to, self._read_to)
        self._head, self._read_to = (generation, end), max(end, _HEADER.size)
        return [from_json(json.loads(line)) for line in text.splitlines()]

    def append(self, records: Iterable[Record]) -> None:
        """Adds records, under the lock. Raises OSError when there is no room; then it adds none."""
        generation, end = self._end()
        self._write(generation, max(end, _HEADER.size), records)

    def write_anew(self, record: Record) -> None:
        """Puts one record in place of all, under the lock. Raises OSError."""
        generation, _ = self._end()
        end = self._write(generation + 1, _HEADER.size, [record])
        os.ftruncate(self._file, end)

    def _end(self) -> tuple[int, int]:
        head = os.pread(self._file, _HEADER.size, 0)
        return _HEADER.unpack(head) if len(head) == _HEADER.size else (0, 0)

    def _write(self, generation: int, start: int, records: Iterable[Record]) -> int:
        lines = (json.dumps(to_json(each), separators=(",", ":")) + "\n" for each in records)
        text = "".join(lines).encode()
        written = 0
        while written < len(text):
            written += os.pwrite(self._file, text[written:], start + written)
        end = start + len(text)
        os.pwrite(self._file, _HEADER.pack(generation, end), 0)
        return end
