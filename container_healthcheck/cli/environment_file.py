"""The service's own environment, for commands that someone else runs on the same host.

systemd gives the service what stands in a file; a command that is to mean the same service (the
same address, the same folder of drain marks) reads that file too. Its lines are systemd's:
NAME=value, quotes around the value or parts of it, comments with # or ;, a backslash at the end to
go on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

_LINE = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)", re.DOTALL)
_PART = re.compile(r"'([^']*)'?|\"((?:[^\"\\]|\\.)*)\"?|\\(.)|([^'\"\\]+)", re.DOTALL)


def read(path: Path) -> Mapping[str, str]:
    """The variables in the file; what is no assignment is passed over, as systemd does.

    Raises OSError.
    """
    text = path.read_text(encoding="utf-8", errors="replace").replace("\\\n", "")
    found: dict[str, str] = {}
    for line in text.splitlines():
        assignment = _LINE.fullmatch(line)
        if assignment:
            found[assignment.group(1)] = _unquoted(assignment.group(2).rstrip())
    return found


def _unquoted(value: str) -> str:
    parts = []
    for single, double, escaped, plain in _PART.findall(value):
        parts.append(single or re.sub(r"\\(.)", r"\1", double) or escaped or plain)
    return "".join(parts)
