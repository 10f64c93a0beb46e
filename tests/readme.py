"""The examples in the READMEs."""

from __future__ import annotations

import re

from sandbox.service import SOURCE

READMES = ["README.md", "README.zh-CN.md"]

# What differs from run to run, and the word it is compared as.
VOLATILE = [
    (re.compile(r'"container_id":"[0-9a-f]{10}"'), '"container_id":"ID"'),
    (re.compile(r'"created":\d+'), '"created":N'),
    (re.compile(r"Up ((About )?(a|an|\d+) \w+|Less than a second)"), "Up TIME"),
    (re.compile(r"((About )?(a|an|\d+) \w+|Less than a second) ago"), "TIME ago"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d"), "DATE"),
]


def blocks(readme: str, kind: str) -> list[str]:
    """The blocks of one kind: "" can be run anywhere, "console" need a host or a gateway."""
    text = (SOURCE / readme).read_text()
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [block for each, block in found if each == kind]


def chapter(readme: str, about: str) -> str:
    """The chapter in which something is first named."""
    chapters = (SOURCE / readme).read_text().split("\n## ")
    return next(each for each in chapters if about in each)


def examples(readme: str, kind: str = "") -> list[tuple[str, str]]:
    """The commands that are shown with their output."""
    found = []
    for block in blocks(readme, kind):
        for example in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = example.partition("\n")
            found.append((command, output))
    return found


def steady(text: str) -> str:
    """The text, without what differs from run to run."""
    for pattern, word in VOLATILE:
        text = pattern.sub(word, text)
    return text
