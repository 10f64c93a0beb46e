"""Files of settings, as systemd reads them; its own reading is compared in tests/packaging."""

from __future__ import annotations

from pathlib import Path

import pytest

from container_healthcheck.cli import environment_file

# What stands in a file, and what systemd makes of it.
LINES = [
    ("A=b", "b"),
    ("  A = b  ", "b"),
    ("A=' -port 4246 '", " -port 4246 "),
    ('A="it\'s"', "it's"),
    ('A="say \\"so\\""', 'say "so"'),
    ('A="a"\'b\' "c" d ', "abcd"),
    ("A=a' b'\"c\"", "a' b'\"c\""),
    (r'A="[\d] \\ \$ \`"', r"[\d] \ $ `"),
    (r"A='[\d] \\'", r"[\d] \\"),
    (r"A=[\d] \\ \"", r"[d] \ " + '"'),
    ("A=one \\\ntwo", "one two"),
    ('A="one \\\ntwo\nthree"', "one two\nthree"),
    ("A='one\ntwo'", "one\ntwo"),
    ("A=b\\ ", "b "),
    ("A=", ""),
    ("A=old\nA=new", "new"),
    ("# A=no\n;A=no\nA=yes", "yes"),
    ("not an assignment\nA=b", "b"),
    ("1A=no\nA B=no\nA=b", "b"),
    ("A='open", "open"),
    ('A="open', "open"),
    ('A="b\\', "b"),
    ("A=b\\", "b"),
    ("A=a=b", "a=b"),
]


@pytest.mark.parametrize(("text", "value"), LINES)
def test_lines_are_read_as_systemd_reads_them(tmp_path: Path, text: str, value: str) -> None:
    path = tmp_path / "file"
    path.write_text(text)

    assert environment_file.read(path) == {"A": value}


def test_bytes_that_are_no_text_are_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"A=\xff\nB=b\n")

    assert environment_file.read(path)["B"] == "b"
