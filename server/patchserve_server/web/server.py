"""The HTTP server: uvicorn's protocols in this process and on this event loop, and the drain.

uvicorn's own server takes the signals of the process. Here they have one owner: bootstrap/lifecycle.py.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

import uvicorn

from patchserve_server.access import Authenticator
from patchserve_server.access.addresses import listening_address
from patchserve_server.access.binding import BACKLOG, bind
from patchserve_server.access.tls import TlsContexts
from patchserve_server.serving.entrance import Entrance
from patchserve_server.serving.reading_places import ReadingPlaces, places_of_one_client
from patchserve_server.web.application import create_web_application
from patchserve_server.web.arrivals import Arrivals
from patchserve_server.web.bodies import KEEPS_S
from patchserve_server.web.connections import Connections
from patchserve_server.web.http_connection import HttpConnection
from patchserve_server.web.listening import HttpListening
from patchserve_server.web.shared import Shared
from patchserve_server.web.socket_protocol import socket_options

KEEP_ALIVE_S: Final = 75  # load balancers keep connections for up to 60 s, and must close them first
_AT_ONCE: Final = 32
_END_S: Final = 1.0  # how long cancelled requests may take to end


def _large_messages(listening: HttpListening, entrance: Entrance) -> ReadingPlaces:
    count = listening.large_messages
    return ReadingPlaces(
        entrance.reception.waiting,
        count=count,
        per_client=places_of_one_client(count, is_shared=listening.client_share < 1),
        keeps_s=KEEPS_S,
        max_queue=listening.max_connections,
    )


class HttpServer:
    """Alive after `start`, stopped after `stop`. Without authenticator, no token is needed."""

    def __init__(self, listening: HttpListening, entrance: Entrance, authenticator: Authenticator | None) -> None:
        self._listening = listening
        config = uvicorn.Config(
            create_web_application(entrance, authenticator, listening),
            interface="asgi3",
            http="httptools",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            **socket_options(listening.max_message_bytes),
        )
        config.load()
        large_messages = _large_messages(listening, entrance)
        self._shared = Shared(
            config, entrance, listening.write_timeout_s, large_messages, listening.max_connection_age_s
        )
        self._connections = Connections(listening.max_connections, listening.client_share)
        contexts = TlsContexts(listening.identity) if listening.identity else None
        self._arrivals = Arrivals(self._shared, self._connections, contexts)
        self._scheme = "https" if contexts else "http"
        self._listeners: list[asyncio.Server] = []

    async def start(self) -> str:
        """Binds the port; returns the address as a URL.

        Raises:
            StartupError: the address cannot be bound.
        """
        loop, listening = asyncio.get_running_loop(), self._listening
        sockets = bind(listening.host, listening.port, shares_port=listening.shares_port)
        port = sockets[0].getsockname()[1]
        for bound in sockets:
            # asyncio takes the same number for how many connections arrive at once, before anything else goes on.
            self._listeners.append(await loop.create_server(self._arrivals.protocol, sock=bound, backlog=_AT_ONCE))
            bound.listen(BACKLOG)
        return f"{self._scheme}://{listening_address(self._listening.host, port)}"

    async def stop(self, grace_s: float) -> None:
        """Finishes accepted work in the grace time, then closes all connections."""
        for listener in self._listeners:
            listener.close()
        self._arrivals.close()
        for connection in list(self._shared.state.connections):
            if isinstance(connection, HttpConnection):  # a WebSocket ends with its call
                connection.shutdown()
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self._connections.all_closed()
        tasks = self._shared.state.tasks.copy()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_END_S)
        self._connections.end_all()
