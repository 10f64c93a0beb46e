"""The examples in the READMEs."""

from __future__ import annotations

import re

from sandbox.running_service import SOURCE

READMES = ["README.md", "README.zh-CN.md"]

# What differs from run to run, and the word it is compared as.
VOLATILE = [
    (re.compile(r'"container_id":"[0-9a-f]{10}"'), '"container_id":"ID"'),
    (re.compile(r'"created":\d+'), '"created":N'),
    (re.compile(r"Up ((About )?(a|an|\d+) \w+|Less than a second)"), "Up TIME"),
    (re.compile(r"((About )?(a|an|\d+) \w+|Less than a second) ago"), "TIME ago"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d"), "DATE"),
]


def fenced(text: str) -> list[tuple[str, str]]:
    """The blocks of a text, each with its kind: "console" and the like, or ""."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(block: str) -> list[tuple[str, str]]:
    """The commands of a block that are shown with their output."""
    shown = re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
    return [(command, output) for command, _, output in (each.partition("\n") for each in shown)]


def chapter(readme: str, about: str) -> str:
    """The chapter in which something is first named."""
    chapters = (SOURCE / readme).read_text().split("\n## ")
    return next(each for each in chapters if about in each)


def examples(readme: str, kind: str = "") -> list[tuple[str, str]]:
    """The examples of one kind: "" can be run anywhere, "console" need a host or a gateway."""
    blocks = fenced((SOURCE / readme).read_text())
    return [each for its_kind, block in blocks if its_kind == kind for each in commands(block)]


def steady(text: str) -> str:
    """The text, without what differs from run to run."""
    for pattern, word in VOLATILE:
        text = pattern.sub(word, text)
    return text
