"""Connections to the server that come from a chosen address of this machine, so that it sees several callers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_CHUNK_BYTES = 2**16


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(_CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


@asynccontextmanager
async def relayed(source: str, port: int) -> AsyncIterator[str]:
    """Relay to this port of this machine from the address `source`, such as 127.0.0.2. Yields where to connect."""
    copying: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
        copying.add(asyncio.create_task(_copy(reader, to_writer)))
        copying.add(asyncio.create_task(_copy(to_reader, writer)))

    relay = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        host, relay_port = relay.sockets[0].getsockname()
        yield f"{host}:{relay_port}"
    finally:
        for task in copying:
            task.cancel()
        relay.close()
