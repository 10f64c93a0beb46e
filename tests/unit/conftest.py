"""Files without a name, such as the workers of one master share."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

import pytest


@pytest.fixture
def file() -> Iterator[int]:
    """The descriptor of one."""
    with tempfile.TemporaryFile(buffering=0) as opened:
        yield opened.fileno()


@pytest.fixture
def files(file: int) -> Iterator[tuple[int, int]]:
    """The descriptors of a ledger and a sheet."""
    with tempfile.TemporaryFile(buffering=0) as sheet:
        yield file, sheet.fileno()
