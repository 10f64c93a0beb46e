"""Forwards connections from listening sockets of another network namespace into this one."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from typing import NamedTuple


class Forwarder(NamedTuple):
    """A listening socket, and the address that its connections go to."""

    listener: socket.socket
    host: str
    port: int


async def forward(forwarders: Sequence[Forwarder]) -> None:
    """Forwards for ever."""
    async with contextlib.AsyncExitStack() as stack:
        for each in forwarders:
            await stack.enter_async_context(await _serve(each))
        await asyncio.Event().wait()


async def _serve(forwarder: Forwarder) -> asyncio.Server:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError), contextlib.closing(writer):
            onward = await asyncio.open_connection(forwarder.host, forwarder.port)
            with contextlib.closing(onward[1]):
                await asyncio.gather(_copy(reader, onward[1]), _copy(onward[0], writer))

    return await asyncio.start_server(connected, sock=forwarder.listener)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    # The other way may still have something to say.
    writer.write_eof()
