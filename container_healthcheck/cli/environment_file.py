"""The service's own environment, for commands that someone else runs on the same host.

systemd gives the service what is in a file; a command that is to mean the same service (the
same address, the same folder of drain marks) reads that file too, as systemd does
(systemd.exec(5), EnvironmentFile=): NAME=value a line, comments with # or ;, a backslash at the end
to continue. Quotes count where the value begins. Where versions differ, backslashes within quotes
are read as by those after 219, and at the end of a comment as by those before 254.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

_ITEM = re.compile(
    r"""
      [;#] (?: \\. | [^\n\\] )*
    | ([A-Za-z_][A-Za-z0-9_]*) [ \t]* = [ \t]*
      ( (?: ' [^']* (?: '|\Z ) [ \t]* | " (?: \\. | \\\Z | [^"\\] )* (?: "|\Z ) [ \t]* )* )
      ( (?: \\. | \\\Z | [^\n\\] )*? ) [ \t]* (?= \n|\Z )
    | \S [^\n]*
    """,
    re.DOTALL | re.VERBOSE,
)
_QUOTED = re.compile(r"""'([^']*)'?|"((?:\\.|\\\Z|[^"\\])*)"?""", re.DOTALL)


def read(path: Path) -> Mapping[str, str]:
    """The variables in the file; what is no assignment is passed over, as systemd does.

    Raises OSError.
    """
    text = path.read_text(encoding="utf-8", errors="replace")
    return {
        name: "".join(single + _unescaped(double) for single, double in _QUOTED.findall(quoted))
        + re.sub(r"\\(?:\n|(.?))", r"\1", plain, flags=re.DOTALL)
        for name, quoted, plain in _ITEM.findall(text)
        if name
    }


def _unescaped(quoted: str) -> str:
    return re.sub(r"\\(?:\n|\Z|([\"\\`$]))", lambda found: found[1] or "", quoted)
