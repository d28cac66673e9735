"""The HTTP server: uvicorn in this process and on this event loop. It handles no signals: the drain is the server's."""

from __future__ import annotations

import asyncio
import socket
from typing import Final

import uvicorn

from patchserve_server.access import Authenticator
from patchserve_server.domain.errors import StartupError
from patchserve_server.serving.entrance import Entrance
from patchserve_server.web.application import create_web_application
from patchserve_server.web.listening import HttpListening
from patchserve_server.web.socket_protocol import socket_options

_BACKLOG: Final = 128


class HttpServer:
    """Alive after `start`, stopped after `stop`. Without authenticator, no token is needed."""

    def __init__(self, listening: HttpListening, entrance: Entrance, authenticator: Authenticator | None) -> None:
        self._listening = listening
        self._application = create_web_application(entrance, authenticator, listening)
        self._serving: asyncio.Task[None] | None = None
        self._server: uvicorn.Server | None = None

    async def start(self) -> str:
        """Binds the port; returns the address as a URL.

        Raises:
            StartupError: the address cannot be bound, or is not allowed without TLS.
        """
        listening = self._listening
        try:
            bound = socket.create_server((listening.host, listening.port), backlog=_BACKLOG)
        except OSError as error:
            raise StartupError(f"Cannot listen on {listening.host}:{listening.port}: {error.strerror}.") from None
        config = uvicorn.Config(
            self._application,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            **socket_options(listening.max_message_bytes),
        )
        self._server = uvicorn.Server(config)
        # Not `serve`, which would take the signals.
        self._serving = asyncio.create_task(self._server._serve([bound]))  # noqa: SLF001
        return f"http://{listening.host}:{bound.getsockname()[1]}"

    async def stop(self, grace_s: float) -> None:
        """Finishes accepted work in the grace time, then closes all connections."""
        if self._server is None or self._serving is None:
            return
        self._server.config.timeout_graceful_shutdown = max(1, round(grace_s))
        self._server.should_exit = True
        await self._serving
