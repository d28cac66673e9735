"""Where an engine listens for its fronts: on a Unix socket, or for fronts of other machines on TCP."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable

from patchserve_server.access.addresses import is_unix_socket, private_socket_file


async def listen(
    protocol: Callable[[], asyncio.Protocol],
    address: str,
    tls: ssl.SSLContext | None = None,
    *,
    shares_port: bool = False,
) -> asyncio.Server:
    """Listens on `unix:PATH`, which only the server's user can open, or on HOST:PORT.

    Args:
        protocol: makes the one of a connection.
        address: where.
        tls: of HOST:PORT; None: plain text.
        shares_port: with a process that has reserved the port for this one.

    Raises:
        OSError, StartupError: it cannot be bound.
    """
    loop = asyncio.get_running_loop()
    if is_unix_socket(address):
        with private_socket_file(address):
            return await loop.create_unix_server(protocol, address.partition(":")[2])
    host, port = _host_and_port(address)
    return await loop.create_server(protocol, host, port, ssl=tls, reuse_port=shares_port or None)


async def connect(protocol: asyncio.Protocol, address: str, tls: ssl.SSLContext | None = None) -> None:
    """Connects the protocol to an engine.

    Raises:
        OSError: nobody listens there, or the certificate is not valid.
    """
    loop = asyncio.get_running_loop()
    if is_unix_socket(address):
        await loop.create_unix_connection(lambda: protocol, address.partition(":")[2])
        return
    host, port = _host_and_port(address)
    await loop.create_connection(lambda: protocol, host, port, ssl=tls)


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
