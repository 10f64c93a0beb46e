"""What the machine may refuse."""

from __future__ import annotations

from typing import Any, NoReturn


def no_room(*_: Any) -> NoReturn:
    """In place of a system call that writes, on a disk that is full."""
    raise OSError(28, "No space left on device")
