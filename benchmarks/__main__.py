"""`python -m benchmarks`: measures, prints the tables, and keeps them in benchmarks/README.md."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import benchmarks.service
import benchmarks.versions

KEPT = Path(__file__).parent / "README.md"
HEADER = """# Benchmarks

Made by `make bench` on {date}, {machine}, Python {python}, {cores} cores, shared with other work:
compare within a table, not between machines.
"""


def _tables() -> Iterator[str]:
    yield from benchmarks.versions.tables()
    yield from benchmarks.service.tables()
    # A process of its own: it leaves this network namespace.
    gateway = [sys.executable, "-m", "benchmarks.gateway"]
    yield subprocess.run(gateway, stdout=subprocess.PIPE, text=True, check=True).stdout.rstrip()


def main() -> int:
    """Runs all benchmarks."""
    text = HEADER.format(
        date=datetime.datetime.now(tz=datetime.timezone.utc).date(),
        machine=f"{platform.system()} {platform.release().partition('-')[0]} {platform.machine()}",
        python=platform.python_version(),
        cores=os.cpu_count(),
    )
    print(text)
    for table in _tables():
        print(table, end="\n\n", flush=True)
        text += f"\n{table}\n"
    KEPT.write_text(text)
    return 0


sys.exit(main())
