"""App codes, and which container names stand for which app.

paasagent names a container `<app_code>-<unix time>`; for a Java app it leaves the dash out. App
codes are often prefixes of each other (`bk_iam`, `bk_iam_app`), so a name is matched whole.
"""

from __future__ import annotations

import re
import warnings
from functools import lru_cache

PLACEHOLDER = "{app_code}"
NO_APP_CODE = (
    "not an app code: letters, digits and _ . - are allowed, the first one a letter or digit,"
    " 128 at most"
)
"""What to say of a text that is none."""

_LONGEST = 128
_APP_CODE = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_.-]{{0,{_LONGEST - 1}}}")


def is_app_code(text: str) -> bool:
    """True when `text` has the form of an app code, whether or not such an app exists."""
    return _APP_CODE.fullmatch(text) is not None


class NamePattern:
    """What a container's whole name must look like: plain text, `{app_code}`, regular expression.

    Raises ValueError when `{app_code}` is not there exactly once, when what stands before it is not
    plain text, or when what stands after it is not a regular expression, or one whose meaning a
    later Python will change.
    """

    def __init__(self, pattern: str) -> None:
        if pattern.count(PLACEHOLDER) != 1:
            raise ValueError(f"{PLACEHOLDER} must be in it exactly once")
        self.text = pattern
        self.before, after = pattern.split(PLACEHOLDER)
        if not re.fullmatch(r"[A-Za-z0-9_.-]*", self.before):
            raise ValueError(f"before {PLACEHOLDER} only letters, digits and _ . - are allowed")
        self._after = _compile(after)
        self.app_codes = lru_cache(maxsize=4096)(self._app_codes)

    def __str__(self) -> str:
        return self.text

    def _app_codes(self, name: str) -> tuple[str, ...]:
        """Every app code that a container called `name` belongs to, the shortest first."""
        if not name.startswith(self.before):
            return ()
        start = len(self.before)
        ends = range(start + 1, min(len(name), start + _LONGEST) + 1)
        codes = (name[start:end] for end in ends if self._after.fullmatch(name, end))
        return tuple(filter(is_app_code, codes))

    def likely_app_codes(self, name: str) -> tuple[str, ...]:
        """The app codes to list for a container called `name`.

        That is the shortest (`bk_iam` for `bk_iam-1709878117`), and any other that could be meant:
        a Java container of the app `a-1` (`a-1` + ten digits) looks like one of the app `a`. The
        name as a whole, and one that ends in the dash of its suffix, are not meant.
        """
        codes = self.app_codes(name)
        others = (code for code in codes[1:] if not code.endswith("-") and not name.endswith(code))
        return (*codes[:1], *others)


def _compile(expression: str) -> re.Pattern[str]:
    """Compiles what stands after `{app_code}`. Raises ValueError."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return re.compile(expression, re.ASCII)
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"not a regular expression: {error}") from error
        except Warning as warning:
            # `[`, `--`, `&&`, `||` or `~~` within brackets: reserved for set operations.
            problem = str(warning).lower()
            raise ValueError(
                f"ambiguous regular expression, {problem} after {PLACEHOLDER}: put a backslash"
                r" before the character there, as in \[ or \-"
            ) from warning
