"""A client that keeps asking: `python -m sandbox.load URL RATE`.

It begins RATE GETs and RATE POSTs a second, whether earlier ones are answered or not, each on a
connection of its own. Every result is one line of JSON: method, start, end (seconds, on the clock
of time.monotonic), status (0: none) and what the app said. When its input ends it begins no more,
waits for what is under way, and ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from urllib.parse import urlsplit

PATIENCE = 30.0
_BODY = b"x" * 2000


async def _exchange(method: str, host: str, port: int, path: str) -> tuple[int, str]:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        body = _BODY if method == "POST" else b""
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        answer = await reader.read()
        head_bytes, _, content = answer.partition(b"\r\n\r\n")
        return int(head_bytes.split()[1]), content[:200].decode(errors="replace")
    finally:
        writer.close()


async def _ask(method: str, url: str) -> None:
    parts = urlsplit(url)
    start = time.monotonic()
    status, said = 0, ""
    try:
        host, port = str(parts.hostname), parts.port or 80
        status, said = await asyncio.wait_for(_exchange(method, host, port, parts.path), PATIENCE)
    except (OSError, ValueError, IndexError, asyncio.TimeoutError) as error:
        said = repr(error)
    line = {"method": method, "start": start, "end": time.monotonic(), "status": status}
    print(json.dumps({**line, "said": said}), flush=True)


async def _run(url: str, rate: float) -> None:
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    loop.add_reader(sys.stdin, over.set)
    under_way: set[asyncio.Task[None]] = set()
    while not over.is_set():
        for method in ("GET", "POST"):
            task = loop.create_task(_ask(method, url))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(over.wait(), 1 / rate)
    if under_way:
        await asyncio.wait(under_way)


if __name__ == "__main__":
    asyncio.run(_run(sys.argv[1], float(sys.argv[2])))
