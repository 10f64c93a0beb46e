"""Text in a file that several processes read while one writes: never over what they may read."""

from __future__ import annotations

import os


def place_beside(first: int, start: int, end: int, length: int) -> int:
    """Where so many bytes touch nothing from `start` to `end`: at `first` if they fit there."""
    return first if first + length <= start else end


def write_at(file: int, text: bytes, place: int) -> None:
    """Writes all of the text. Raises OSError; then some of it may be written."""
    written = 0
    while written < len(text):
        written += os.pwrite(file, text[written:], place + written)
