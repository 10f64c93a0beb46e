"""What a sandbox needs of the machine that it runs on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence


def missing(what: str, programs: Sequence[str], packages: str) -> str | None:
    """What keeps `what` from being started here, or None: it needs root and these programs.

    `packages` are those of Debian that have them.
    """
    if os.geteuid() != 0:
        return f"{what} needs root"
    absent = [program for program in programs if shutil.which(program) is None]
    if absent:
        return f"not installed: {', '.join(absent)} (Debian: {packages})"
    return None
