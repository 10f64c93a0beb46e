"""The completion, in a real bash and a real zsh."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from sandbox.running_service import SOURCE, RunningService
from sandbox.waiting import wait_until
from tests.conftest import give_up
from tests.readme import help_commands

COMMANDS = help_commands()

# What zsh's completion adds is written to a file as well; Ctrl-X says that it is done.
_ZSH = """
autoload -Uz compinit && compinit -u -D
eval "$(container-healthcheck completion zsh)"
PATH=$EVIL:$PATH
compadd() {
    local -a hits
    if [[ ${@[1,(i)(-|--)]} != *-(O|A|D)\\ * ]]; then
        builtin compadd -O hits "$@"
        print -rl -- $hits >>$OFFERED
    fi
    builtin compadd "$@"
}
finish() { print -r "line $BUFFER" >>$OFFERED; print done >>$OFFERED }
zle -N finish
bindkey '^I' expand-or-complete '^X' finish
zstyle ':completion:*' menu no
"""


def zsh(line: str, environment: dict[str, str], tmp_path: Path, evil: str = "") -> list[str]:
    """What zsh offers for the last word of a line at a key press, and the line that it makes."""
    if shutil.which("zsh") is None:
        give_up("not installed: zsh")
    (tmp_path / ".zshrc").write_text(_ZSH)
    offered = tmp_path / "offered"
    offered.write_text("")
    ours, theirs = pty.openpty()
    shell = subprocess.Popen(
        ["zsh", "-d", "-i"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={
            **environment,
            "ZDOTDIR": str(tmp_path),
            "OFFERED": str(offered),
            "EVIL": evil,
            "TERM": "vt100",
        },
        start_new_session=True,
    )
    os.close(theirs)
    os.set_blocking(ours, False)

    def done() -> str:
        with contextlib.suppress(BlockingIOError):
            os.read(ours, 4096)
        return offered.read_text()

    try:
        os.write(ours, f"{line}\t\x18".encode())
        wait_until(done, lambda text: text.endswith("done\n"), "zsh's completion")
    finally:
        shell.kill()
        shell.wait()
        os.close(ours)
    return [each for each in offered.read_text().splitlines()[:-1] if each]


@pytest.fixture
def environment(service: RunningService, tmp_path: Path) -> dict[str, str]:
    """Where `container-healthcheck` is a command, and knows the service."""
    if shutil.which("bash") is None:
        give_up("not installed: bash")
    program = tmp_path / "container-healthcheck"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m container_healthcheck "$@"\n')
    program.chmod(0o755)
    path = f"{tmp_path}:{service.environment['PATH']}"
    return {**service.environment, "PATH": path, "PYTHONPATH": str(SOURCE)}


def bash(script: str, environment: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        ["bash", "--norc", "-c", script, "bash", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def offered(line: str, environment: dict[str, str]) -> list[str]:
    """What is offered for the last word of a line."""
    words = line.split(" ")
    ask = """
        source <(container-healthcheck completion bash)
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        _shtab_container_healthcheck "$1"
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    return bash(ask, environment, *words).split()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("container-healthcheck ", COMMANDS),
        ("container-healthcheck dr", ["drain"]),
        ("container-healthcheck --v", ["--version"]),
        ("container-healthcheck check --d", ["--direct"]),
        ("container-healthcheck drain --f", ["--for"]),
        ("container-healthcheck serve --probe-p", ["--probe-paths"]),
        ("container-healthcheck serve ", []),
        ("container-healthcheck completion ", ["bash", "zsh"]),
        # A wrong word: the commands that there are.
        ("container-healthcheck nonsense ", COMMANDS),
        # A value, which is the user's own.
        ("container-healthcheck check --url ", []),
        ("container-healthcheck serve -port ", []),
    ],
)
def test_commands_and_flags(line: str, words: list[str], environment: dict[str, str]) -> None:
    assert offered(line, environment) == words


def test_every_flag_is_offered(environment: dict[str, str]) -> None:
    for command in COMMANDS:
        shown = bash(f"container-healthcheck {command} --help", environment)
        flags = set(re.findall(r"(?<![\w-])--[a-z-]+", shown.partition("\n\n")[2]))
        assert flags <= {*offered(f"container-healthcheck {command} --", environment), "--bind"}


def test_apps_are_those_of_the_service(
    environment: dict[str, str], service: RunningService, run: Callable[..., object], app_code: str
) -> None:
    run(f"{app_code}-1709878117")
    service.settle(app_code, 0)

    for command in ("check", "drain", "undrain"):
        line = f"container-healthcheck {command} {app_code[:-1]}"
        # It waits a second for the service, which is little on a busy machine.
        wait_until(partial(offered, line, environment), [app_code].__eq__, line)


def test_without_a_service_no_app_is_offered(environment: dict[str, str]) -> None:
    away = {**environment, "CONTAINER_HEALTHCHECK_BIND": "127.0.0.1:1"}
    assert offered("container-healthcheck check ", away) == []


def test_what_another_program_says_is_not_run(environment: dict[str, str], tmp_path: Path) -> None:
    """Whoever has the service's port says what the apps are called."""
    evil = tmp_path / "evil" / "container-healthcheck"
    evil.parent.mkdir()
    act = f"touch {tmp_path}/done"
    evil.write_text(f"#!/bin/sh\nprintf 'APP CODE\\n$({act}) 0\\n`{act}` 0\\nwell 0\\n'\n")
    evil.chmod(0o755)
    ask = f"""
        source <(container-healthcheck completion bash)
        PATH={evil.parent}:$PATH
        COMP_WORDS=(container-healthcheck check '') COMP_CWORD=2
        _shtab_container_healthcheck container-healthcheck
        echo "${{COMPREPLY[@]}}"
    """
    assert bash(ask, environment) == "well\n"
    assert not (tmp_path / "done").exists()


def test_a_key_press_completes(environment: dict[str, str]) -> None:
    """As a user does it: in a terminal, with the tabulator key."""
    ours, theirs = pty.openpty()
    shell = subprocess.Popen(
        ["bash", "--norc", "--noprofile", "-i"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**environment, "PS1": "$ ", "TERM": "vt100", "INPUTRC": os.devnull},
        start_new_session=True,
    )
    os.close(theirs)
    os.set_blocking(ours, False)
    seen = ""

    def read() -> str:
        nonlocal seen
        with contextlib.suppress(BlockingIOError):
            seen += os.read(ours, 4096).decode()
        return seen

    try:
        os.write(ours, b"source <(container-healthcheck completion bash); echo it is $((40 + 2))\n")
        wait_until(read, lambda text: "it is 42" in text, "the script")
        os.write(ours, b"container-healthcheck undr\t--al\t")
        wait_until(read, lambda text: "undrain --all " in text, "the completed line")
    finally:
        shell.kill()
        shell.wait()
        os.close(ours)


# --- zsh


@pytest.mark.parametrize(
    ("line", "words", "completed"),
    [
        ("container-healthcheck ", COMMANDS, "container-healthcheck "),
        ("container-healthcheck undr", ["undrain"], "container-healthcheck undrain "),
        ("container-healthcheck --v", ["--version"], "container-healthcheck --version "),
        (
            "container-healthcheck check --d",
            ["--direct"],
            "container-healthcheck check --direct ",
        ),
        (
            "container-healthcheck serve -port 1 --probe-p",
            ["--probe-paths"],
            "container-healthcheck serve -port 1 --probe-paths ",
        ),
        (
            "container-healthcheck serve -ngx",
            ["-ngx-port"],
            "container-healthcheck serve -ngx-port ",
        ),
        (
            "container-healthcheck completion z",
            ["zsh"],
            "container-healthcheck completion zsh ",
        ),
        (
            "container-healthcheck check --url ",
            [],
            "container-healthcheck check --url ",
        ),
    ],
)
def test_commands_and_flags_in_zsh(
    line: str, words: list[str], completed: str, environment: dict[str, str], tmp_path: Path
) -> None:
    *found, made = zsh(line, environment, tmp_path)

    assert (sorted(found), made) == (sorted(words), f"line {completed}")


def test_apps_are_those_of_the_service_in_zsh(
    environment: dict[str, str],
    service: RunningService,
    run: Callable[..., object],
    app_code: str,
    tmp_path: Path,
) -> None:
    run(f"{app_code}-1709878117")
    service.settle(app_code, 0)

    line = f"container-healthcheck drain {app_code[:-1]}"
    wait_until(
        lambda: zsh(line, environment, tmp_path),
        [app_code, f"line container-healthcheck drain {app_code} "].__eq__,
        line,
    )


def test_what_another_program_says_is_not_run_by_zsh(
    environment: dict[str, str], tmp_path: Path
) -> None:
    evil = tmp_path / "evil" / "container-healthcheck"
    evil.parent.mkdir()
    act = f"touch {tmp_path}/done"
    evil.write_text(f"#!/bin/sh\nprintf 'APP CODE\\n$({act}) 0\\n`{act}` 0\\nwell 0\\n'\n")
    evil.chmod(0o755)

    found = zsh("container-healthcheck check ", environment, tmp_path, str(evil.parent))
    assert found == ["well", "line container-healthcheck check well "]
    assert not (tmp_path / "done").exists()
