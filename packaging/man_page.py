"""Makes the manual page container-healthcheck(8) from the chapters of docs/en; prints it.

It knows the Markdown that those chapters use. What it does not know stops it: a page that is
silently wrong helps nobody.
"""

from __future__ import annotations

import re
import sys
from configparser import ConfigParser
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent
CHAPTERS = SOURCE / "docs" / "en"
DOCUMENTS = "/usr/share/doc/container-healthcheck"

_BLOCK = re.compile(r"^```\w*\n(?:(?!```).*\n)*```$|(?:^(?!```).+\n?)+", re.MULTILINE)
_INLINE = re.compile(r"`([^`]+)`|\*\*([^*]+)\*\*|\*([^*]+)\*|\[([^]]+)\]\(([^)]+)\)")


def page(version: str) -> str:
    """The manual page, in plain ASCII."""
    config = ConfigParser()
    config.read(SOURCE / "setup.cfg", encoding="utf-8")
    summary = config["metadata"]["description"]
    install = (CHAPTERS / "install.md").read_text(encoding="utf-8")
    parts = [
        f'.TH CONTAINER-HEALTHCHECK 8 "" "container-healthcheck {version}"',
        ".SH NAME",
        f"container-healthcheck \\- {text(summary[0].lower() + summary[1:])}",
        ".SH DESCRIPTION",
        body(chapter("command-line.md")),
        ".SH ENVIRONMENT",
        body(chapter("settings.md")),
        ".SH FILES",
        table(next(block for block in install.split("\n\n") if block.startswith("| path"))),
        ".SH SEE ALSO",
        f"The chapters in {text(DOCUMENTS)}, README.md first; systemctl(1), journalctl(1).",
    ]
    return "\n".join(parts) + "\n"


def chapter(name: str) -> str:
    """A chapter without its title and the line with the languages."""
    title, _, rest = (CHAPTERS / name).read_text(encoding="utf-8").split("\n\n", 2)
    if not title.startswith("# "):
        raise ValueError(f"{name}: there is no title")
    return rest


def body(markdown: str) -> str:
    """The blocks of a text in roff."""
    return "\n".join(block(each.rstrip("\n")) for each in _BLOCK.findall(markdown))


def block(markdown: str) -> str:
    """One block in roff: a heading, an example, a table, a list or a paragraph."""
    if markdown.startswith("```"):
        lines = (literal(line) for line in markdown.splitlines()[1:-1])
        return "\n".join([".PP", ".nf", *lines, ".fi"])
    if heading := re.fullmatch(r"##+ (.*)", markdown):
        return f'.SH "{text(heading.group(1).upper())}"'
    if markdown.startswith("| "):
        return table(markdown)
    if markdown.startswith("- "):
        items = re.split(r"^- ", markdown, flags=re.MULTILINE)[1:]
        return "\n".join(f".IP \\(bu 2\n{text(item)}" for item in items)
    if re.match(r"[#>|]|\d+\. ", markdown):
        raise ValueError(f"not known to this script: {markdown}")
    return f".PP\n{text(markdown)}"


def table(markdown: str) -> str:
    """A table as a list: the first cell, and what the others say of it."""
    rows = [
        [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in markdown.splitlines()
    ]
    (_, *heads), _, *rest = rows
    entries = []
    for tag, *cells in rest:
        if len(cells) > 1:
            said = [f"{head}: {cell}" for head, cell in zip(heads, cells, strict=True) if cell]
        else:
            said = cells
        entries.append(f".TP\n{text(tag)}\n{text('; '.join(said))}")
    return "\n".join(entries)


def text(markdown: str) -> str:
    """Running text in roff, on one line."""
    line, pieces, end = " ".join(markdown.split()), [], 0
    for found in _INLINE.finditer(line):
        code, bold, emphasis, name, target = found.groups()
        pieces.append(escaped(line[end : found.start()]))
        if name and not target.startswith("https://"):
            pieces.append(text(name))
        elif name:
            pieces.append(f"{text(name)} <{escaped(target)}>")
        else:
            pieces.append(f"\\f{'I' if emphasis else 'B'}{escaped(code or bold or emphasis)}\\fR")
        end = found.end()
    return _protected("".join([*pieces, escaped(line[end:])]))


def literal(line: str) -> str:
    """A line of an example in roff."""
    return _protected(escaped(line))


def escaped(plain: str) -> str:
    """Plain text in roff: ASCII, with every hyphen as it can be typed."""
    written = plain.replace("\\", r"\e").replace("-", r"\-").replace("^", r"\(ha")
    written = written.replace("~", r"\(ti").replace("`", r"\(ga").replace("'", r"\(aq")
    return re.sub(r"[^ -~]", lambda found: f"\\[u{ord(found.group()):04X}]", written)


def _protected(line: str) -> str:
    return f"\\&{line}" if line.startswith(".") else line


if __name__ == "__main__":
    sys.stdout.write(page(sys.argv[1]))
