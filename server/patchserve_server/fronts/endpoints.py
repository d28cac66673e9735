"""Where an engine listens for its fronts: on a Unix socket, or for fronts of other machines on TCP with mutual TLS."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable

from patchserve_server.access.addresses import is_unix_socket, private_socket_file


async def listen(
    protocol: Callable[[], asyncio.Protocol], address: str, tls: ssl.SSLContext | None = None
) -> asyncio.Server:
    """Listens on `unix:PATH`, which only the server's user can open, or on HOST:PORT, which needs TLS.

    Raises:
        OSError, StartupError: it cannot be bound.
        ValueError: HOST:PORT without TLS.
    """
    loop = asyncio.get_running_loop()
    if is_unix_socket(address):
        with private_socket_file(address):
            return await loop.create_unix_server(protocol, address.partition(":")[2])
    host, port = _host_and_port(address, tls)
    return await loop.create_server(protocol, host, port, ssl=tls)


async def connect(protocol: asyncio.Protocol, address: str, tls: ssl.SSLContext | None = None) -> None:
    """Connects the protocol to an engine.

    Raises:
        OSError: nobody listens there, or the certificate is not valid.
        ValueError: HOST:PORT without TLS.
    """
    loop = asyncio.get_running_loop()
    if is_unix_socket(address):
        await loop.create_unix_connection(lambda: protocol, address.partition(":")[2])
        return
    host, port = _host_and_port(address, tls)
    await loop.create_connection(lambda: protocol, host, port, ssl=tls)


def _host_and_port(address: str, tls: ssl.SSLContext | None) -> tuple[str, int]:
    if tls is None:
        raise ValueError("An engine is reached over TCP only with TLS.")
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
