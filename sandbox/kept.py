"""What is worth keeping from run to run."""

from __future__ import annotations

import os
from pathlib import Path


def kept() -> Path:
    """The folder for it, in the user's cache; it is made when it is missing."""
    parent = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(parent) / "container-healthcheck"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
