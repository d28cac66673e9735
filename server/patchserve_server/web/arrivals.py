"""A connection that has just arrived: it gets a place, and TLS if the server has a certificate."""

from __future__ import annotations

import asyncio
from typing import Final, cast

from patchserve_server.access.tls import TlsContexts
from patchserve_server.domain.errors import QueueFullError
from patchserve_server.web.connections import ConnectionPlace, Connections
from patchserve_server.web.http_connection import LINGER_S, HttpConnection
from patchserve_server.web.peers import address_text
from patchserve_server.web.refusals import TOO_MANY_CONNECTIONS
from patchserve_server.web.shared import Shared

HANDSHAKE_TIMEOUT_S: Final = 20.0


class Arrivals:
    """Where connections arrive. They count from here on, so those without a TLS handshake are limited too.

    Args:
        shared: what all connections share.
        connections: their places.
        contexts: of TLS; None: no TLS.
    """

    def __init__(self, shared: Shared, connections: Connections, contexts: TlsContexts | None) -> None:
        self._shared = shared
        self._connections = connections
        self._contexts = contexts
        self._handshakes: set[asyncio.Task[None]] = set()

    def protocol(self) -> asyncio.Protocol:
        """The protocol of the next connection."""
        return _Arrival(self)

    def arrive(self, transport: asyncio.Transport) -> None:
        """Gives the connection a place, else ends it."""
        peer = transport.get_extra_info("peername")
        if peer is None:  # it has gone
            transport.abort()
            return
        try:
            place = self._connections.open(address_text(peer[0]), transport.abort)
        except QueueFullError:
            if self._contexts is None:
                transport.write(TOO_MANY_CONNECTIONS.response)
            transport.close()
            return
        connection = HttpConnection(self._shared, place)
        if self._contexts is None:
            transport.set_protocol(connection)
            connection.connection_made(transport)
        else:
            task = asyncio.create_task(self._secure(transport, connection, place, self._contexts))
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)

    def close(self) -> None:
        """Ends those that have not got TLS yet."""
        for task in self._handshakes:
            task.cancel()

    async def _secure(
        self, transport: asyncio.Transport, connection: HttpConnection, place: ConnectionPlace, contexts: TlsContexts
    ) -> None:
        transport.set_write_buffer_limits(high=0)  # so that the buffer of TLS is held back at once
        early = _Early()
        try:
            secure = await asyncio.get_running_loop().start_tls(
                transport,
                early,
                contexts.current(),
                server_side=True,
                ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S,
                ssl_shutdown_timeout=LINGER_S,
            )
        except OSError:  # the client sent something else, or nothing, or has no certificate that is valid here
            place.close()
            return
        except BaseException:
            place.end()
            raise
        if secure is None or early.is_lost:
            place.close()
            return
        secure.set_protocol(connection)
        connection.connection_made(secure)
        if early.data:
            connection.data_received(bytes(early.data))


class _Arrival(asyncio.Protocol):
    def __init__(self, arrivals: Arrivals) -> None:
        self._arrivals = arrivals

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._arrivals.arrive(cast(asyncio.Transport, transport))


class _Early(asyncio.Protocol):
    """Keeps what comes with the end of the handshake, before the connection of HTTP is told of it."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.is_lost = False

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        self.is_lost = True
