"""Completion for bash, made from the parser: commands, flags, and the apps of this host."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator

_SCRIPT = """\
# bash completion for container-healthcheck: the output of `container-healthcheck completion bash`.
_container_healthcheck() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD - 1]}}
    local words flags valued has_app=
    COMPREPLY=()
    if ((COMP_CWORD == 1)); then
        words={commands} flags={flags} valued=
    else
        case ${{COMP_WORDS[1]}} in
{cases}
            *) return ;;
        esac
    fi
    if [[ " $valued " == *" $before "* ]]; then
        compopt -o default 2>/dev/null
        return
    fi
    if [[ $word == -* ]]; then
        words=$flags
    elif [[ $has_app ]]; then
        # Nothing else may get in: compgen expands what it is given.
        words=$("$1" list --timeout 1 2>/dev/null | sed -n '2,$s/^\\([A-Za-z0-9_.-]*\\) .*/\\1/p')
    fi
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}}
complete -F _container_healthcheck container-healthcheck
"""


def bash(parser: argparse.ArgumentParser) -> str:
    """The script that completes what `parser` takes."""
    commands = dict(_commands(parser))
    return _SCRIPT.format(
        commands=shlex.quote(" ".join(commands)),
        flags=shlex.quote(" ".join([*_flags(parser), "--version"])),
        cases="\n".join(_case(name, command) for name, command in commands.items()),
    )


def _commands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.items()


def _case(name: str, command: argparse.ArgumentParser) -> str:
    positional = [action for action in command._actions if not action.option_strings]
    words = [str(choice) for action in positional for choice in action.choices or ()]
    has_app = any(action.dest == "app_code" for action in positional)
    given = {
        "words": " ".join(words),
        "flags": " ".join(_flags(command)),
        "valued": " ".join(_valued(command)),
        "has_app": "yes" if has_app else "",
    }
    assignments = " ".join(f"{key}={shlex.quote(value)}" for key, value in given.items())
    return f"            {name}) {assignments} ;;"


def _flags(parser: argparse.ArgumentParser) -> list[str]:
    """Every flag once: with two dashes."""
    return [
        flag for action in parser._actions for flag in action.option_strings if flag[:2] == "--"
    ]


def _valued(parser: argparse.ArgumentParser) -> list[str]:
    """The flags, in all their forms, that a value follows."""
    return [
        flag for action in parser._actions if action.nargs != 0 for flag in action.option_strings
    ]
