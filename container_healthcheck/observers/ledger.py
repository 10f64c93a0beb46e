"""The ledger: what the workers of one master tell each other, in an order that all agree on.

It is a file without a name (in memory, where there is such a place) that the master opens before it
forks: it outlives every worker and needs no disk. Whoever writes or reads holds its lock.

Records are written where nobody reads, and then the header says where they lie: what a writer had
not finished when it died counts for nothing.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterable
from contextlib import AbstractContextManager

from container_healthcheck.model.records import Record, from_json, to_json
from container_healthcheck.observers.file_lock import locked
from container_healthcheck.observers.text_file import place_beside, write_at

LARGEST = 1 << 20
"""From this size on, in bytes, the ledger should be written anew."""

# The generation (it counts how often the ledger was written anew), and where the records begin and
# end.
_HEADER = struct.Struct("=QQQ")
_EMPTY = (0, _HEADER.size, _HEADER.size)


class Ledger:
    """One reader and writer. All of them share `file`, a descriptor of an empty file at first."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._head = _EMPTY
        self._read_to = _HEADER.size

    def locked(self) -> AbstractContextManager[None]:
        """Keeps all others from reading and writing. Raises FileBusyError."""
        return locked(self._file)

    @property
    def is_empty(self) -> bool:
        """True as long as nobody has written."""
        return self._place() == _EMPTY

    @property
    def size(self) -> int:
        """Of all records, in bytes."""
        _, start, end = self._place()
        return end - start

    def has_news(self) -> bool:
        """True when there may be something to read; costs next to nothing, and takes no lock."""
        return self._place() != self._head

    def read(self) -> list[Record]:
        """The records since the last call, or all of a ledger written anew; under the lock."""
        head = generation, start, end = self._place()
        if generation != self._head[0]:
            self._read_to = start
        text = os.pread(self._file, end - self._read_to, self._read_to)
        self._head, self._read_to = head, end
        return [from_json(json.loads(line)) for line in text.splitlines()]

    def append(self, records: Iterable[Record]) -> None:
        """Adds records, under the lock. Raises OSError when there is no room; then it adds none."""
        generation, start, end = self._place()
        text = _text(records)
        write_at(self._file, text, end)
        self._point_to(generation, start, end + len(text))

    def write_anew(self, record: Record) -> None:
        """Puts one record in place of all, under the lock. Raises OSError."""
        generation, start, end = self._place()
        text = _text([record])
        place = place_beside(_HEADER.size, start, end, len(text))
        write_at(self._file, text, place)
        self._point_to(generation + 1, place, place + len(text))

    def _place(self) -> tuple[int, int, int]:
        head = os.pread(self._file, _HEADER.size, 0)
        place = _HEADER.unpack(head) if len(head) == _HEADER.size else _EMPTY
        # A file in which room was only reserved holds zeros.
        return place if place[1] else _EMPTY

    def _point_to(self, generation: int, start: int, end: int) -> None:
        os.pwrite(self._file, _HEADER.pack(generation, start, end), 0)


def _text(records: Iterable[Record]) -> bytes:
    lines = (json.dumps(to_json(each), separators=(",", ":")) + "\n" for each in records)
    return "".join(lines).encode()
