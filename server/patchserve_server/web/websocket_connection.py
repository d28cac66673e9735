"""A connection that became a WebSocket: uvicorn's, which ends when its peer has vanished or does not read."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any, Final

from patchserve_server.serving.reception import Keeps
from patchserve_server.serving.waiting_calls import Waiting
from patchserve_server.web.answering import Answering
from patchserve_server.web.bodies import since_when
from patchserve_server.web.connections import ConnectionPlace
from patchserve_server.web.peers import Peer, set_peer
from patchserve_server.web.shared import SILENT, Shared
from patchserve_server.web.socket_protocol import SocketProtocol

_CLOSE_S: Final = 12.0  # how long the peer may take to close; uvicorn begins to close its side after 10 s


class WebSocketConnection(SocketProtocol):
    """One WebSocket.

    Args:
        shared: what all connections share.
        place: of this one.
        peer: at its other end.
    """

    def __init__(self, shared: Shared, place: ConnectionPlace, peer: Peer) -> None:
        super().__init__(shared.config, shared.state, {}, asyncio.get_running_loop())
        self.logger = self.conn.logger = SILENT
        self.app = Answering(self.app, shared.write_timeout_s)
        self._place = place
        self._peer = peer
        self._places = shared.large_messages
        self._waiting_calls = shared.entrance.reception.waiting
        self._large = AsyncExitStack()  # the reading place of a large message, until the next one is asked for
        self._waiting: Waiting | None = None  # for the rest of it
        self._task: asyncio.Task[None] | None = None
        self._end: asyncio.TimerHandle | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._place.close()
        super().connection_lost(exc)
        if self._end is not None:
            self._end.cancel()
        if self._task is not None:
            self._task.cancel()

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        if self.close_sent:
            self.transport.abort()  # nobody reads what uvicorn has just sent

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._waiting is not None:  # one that comes steadily keeps its place
            self._waiting.since_s = since_when(self._waiting.since_s, len(data))

    async def receive(self) -> Any:  # noqa: ANN401 - an event of ASGI
        await self._large.aclose()  # the message before is counted elsewhere now
        return await super().receive()

    async def receive_large(self) -> Any:  # noqa: ANN401 - an event of ASGI
        """Receives a large message in a reading place, as gRPC receives messages with images."""
        client = self._peer.client
        place = await self._large.enter_async_context(self._places.place(client))
        keeps_s: Keeps = {self._places: self._places.keeps_s}
        self._waiting = Waiting(client, keeps_s, place.give_back, asyncio.timeout(None))
        try:
            return await self._waiting_calls.receive(super().receive_large(), self._waiting, "")
        finally:
            self._waiting = None

    async def run_asgi(self) -> None:
        self._task = asyncio.current_task()
        set_peer(self.scope, self._peer)
        try:
            await super().run_asgi()
        finally:
            await self._large.aclose()
            self._end = self.loop.call_later(_CLOSE_S, self.transport.abort)
