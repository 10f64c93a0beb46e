"""The documents in both languages, and the examples in them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from sandbox.running_service import SOURCE

LANGUAGES = {"en": "README.md", "zh": "README.zh-CN.md"}
CHAPTERS = sorted(path.name for path in (SOURCE / "docs" / "en").glob("*.md"))

# What differs from run to run, and the word it is compared as.
VOLATILE = [
    (re.compile(r'"container_id":"[0-9a-f]{10}"'), '"container_id":"ID"'),
    (re.compile(r'"created":\d+'), '"created":N'),
    (re.compile(r"Up ((About )?(a|an|\d+) \w+|Less than a second)"), "Up TIME"),
    (re.compile(r"((About )?(a|an|\d+) \w+|Less than a second) ago"), "TIME ago"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d([+-]\d\d:\d\d)?"), "DATE"),
    # A column is as wide as its widest row, which may be one that is not shown.
    (re.compile(r" {2,}"), "  "),
]


def help_commands() -> list[str]:
    """The commands that `--help` lists."""
    return re.findall(r"^    (\w+)\b", help_of(""), re.MULTILINE)


def chapter(language: str, name: str) -> Path:
    """The file of one chapter, named as in `docs/en`, or of "README.md" itself."""
    if name == "README.md":
        return SOURCE / LANGUAGES[language]
    return SOURCE / "docs" / language / name


def documents(language: str) -> list[Path]:
    """The README and the chapters behind it."""
    return [chapter(language, name) for name in ("README.md", *CHAPTERS)]


def fenced(text: str) -> list[tuple[str, str]]:
    """The blocks of a text, each with its kind: "console" and the like, or ""."""
    found = re.findall(r"^( *)```(\w*)\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL)
    return [
        (kind, re.sub(f"^{indent}", "", block, flags=re.MULTILINE)) for indent, kind, block in found
    ]


def section(text: str, title: str) -> str:
    """What stands under a heading of the second level, with it."""
    found = re.search(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, title
    return found.group()


def links(text: str) -> list[str]:
    """What the links and pictures of a text point to."""
    return re.findall(r"\]\(([^)\s]+)\)", text)


def commands(block: str) -> list[tuple[str, str]]:
    """The commands of a block that are shown with their output."""
    shown = re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
    return [(command, output) for command, _, output in (each.partition("\n") for each in shown)]


def blocks(document: Path, kind: str = "") -> list[list[tuple[str, str]]]:
    """The examples of one kind, by block: "" can be run anywhere, "console" need a host."""
    each = (commands(block) for its_kind, block in fenced(document.read_text()) if its_kind == kind)
    return [examples for examples in each if examples]


def examples(language: str, kind: str = "") -> list[tuple[str, str]]:
    """All examples of one kind."""
    return [
        example
        for document in documents(language)
        for block in blocks(document, kind)
        for example in block
    ]


def steady(text: str) -> str:
    """The text, without what differs from run to run."""
    for pattern, word in VOLATILE:
        text = pattern.sub(word, text)
    return text


def help_of(command: str) -> str:
    """What `container-healthcheck COMMAND --help` says on a usual terminal; "" is no command."""
    return subprocess.run(
        [sys.executable, "-m", "container_healthcheck", *filter(None, [command]), "--help"],
        cwd=SOURCE,
        env={**os.environ, "COLUMNS": "80"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
