from __future__ import annotations

from pathlib import Path

import pytest

from container_healthcheck.cli import environment_file


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("A=b", "b"),
        ("  A = b  ", "b"),
        ("A=' -port 4246 '", " -port 4246 "),
        ('A="it\'s"', "it's"),
        ('A="say \\"so\\""', 'say "so"'),
        ("A=a' b'\"c\"", "a bc"),
        ("A=one \\\ntwo", "one two"),
        ("A=", ""),
        ("A=old\nA=new", "new"),
        ("# A=no\n;A=no\nA=yes", "yes"),
        ("not an assignment\nA=b", "b"),
        ("A='open", "open"),
        ("A=a=b", "a=b"),
    ],
)
def test_lines_are_read_as_systemd_reads_them(tmp_path: Path, text: str, value: str) -> None:
    path = tmp_path / "file"
    path.write_text(text)

    assert environment_file.read(path) == {"A": value}


def test_bytes_that_are_no_text_are_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"A=\xff\nB=b\n")

    assert environment_file.read(path)["B"] == "b"
