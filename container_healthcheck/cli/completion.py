"""Completion for shells: shtab makes the script from the parser, the app codes come from `list`."""

from __future__ import annotations

import argparse

SHELLS = ["bash", "zsh"]

# App codes come from whoever answers at the service's port, and shells expand what they are given:
# nothing but app codes gets through.
_APP_CODES = """\
_container_healthcheck_app_codes() {
    container-healthcheck list --timeout 1 2>/dev/null |
        sed -n '2,$s/^\\([A-Za-z0-9_.-]*\\) .*/\\1/p'
}
"""
_PREAMBLE = {
    "bash": _APP_CODES
    + """\
_container_healthcheck_apps() {
    compgen -W "$(_container_healthcheck_app_codes)" -- "$1"
}
""",
    "zsh": _APP_CODES
    + """\
_container_healthcheck_apps() {
    local -a app_codes=(${(f)"$(_container_healthcheck_app_codes)"})
    compadd "$@" -a app_codes
}
""",
}


def complete_apps(argument: argparse.Action) -> None:
    """Has an argument completed with the apps of the host."""
    argument.complete = dict.fromkeys(SHELLS, "_container_healthcheck_apps")  # type: ignore[attr-defined]


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """The script that completes what `parser` takes."""
    # Only this command needs it.
    import shtab

    return shtab.complete(parser, shell, preamble=_PREAMBLE[shell])
