"""What the commands exit with, and how they say why.

`check` and `list` exit as monitoring plugins do: 0 healthy, 2 not, 3 unknown. The others exit with
0 for done and 1 for failed. A wrong call exits with 2, or with 3 where a monitoring system may ask.
"""

from __future__ import annotations

import sys

HEALTHY, FAILED = 0, 1
NOT_HEALTHY, UNKNOWN = 2, 3
WRONG_CALL = 2


def complain(text: str, code: int) -> int:
    """Says on stderr, in one line, what is wrong; returns the exit code."""
    print(f"container-healthcheck: {text}", file=sys.stderr)
    return code
