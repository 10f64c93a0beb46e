"""`python -m benchmarks`: measures, prints the tables, and keeps them in benchmarks/README.md."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import sys
from pathlib import Path

import benchmarks.service

KEPT = Path(__file__).parent / "README.md"
HEADER = """# Benchmarks

Made by `make bench` on {date}, {machine}, Python {python}, {cores} cores, shared with other work:
compare within a table, not between machines.
"""


def _gateway() -> str:
    # A process of its own: it leaves this network namespace.
    command = [sys.executable, "-m", "benchmarks.gateway"]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def main() -> int:
    """Runs all benchmarks."""
    text = HEADER.format(
        date=datetime.datetime.now(tz=datetime.timezone.utc).date(),
        machine=f"{platform.system()} {platform.release().partition('-')[0]} {platform.machine()}",
        python=platform.python_version(),
        cores=os.cpu_count(),
    )
    print(text)
    for table in (*benchmarks.service.tables(), _gateway()):
        print(table, end="\n\n", flush=True)
        text += f"\n{table}\n"
    KEPT.write_text(text)
    return 0


sys.exit(main())
