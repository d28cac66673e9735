"""The WebSocket of one call: its messages come within limits of time, and go as long as the caller reads them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketDisconnect

from patchserve_server.domain.errors import StalledReaderError
from patchserve_server.serving.reception import Holdings
from patchserve_server.serving.waiting_calls import Waiting, WaitingCalls
from patchserve_server.web.incoming import IncomingCall


class Socket:
    """The WebSocket of one call.

    While nobody receives, nothing is read from the connection, so the caller has to wait.

    Args:
        websocket: Starlette's.
        incoming: the call.
        waiting_calls: where the call is counted while it waits for a message.
    """

    def __init__(self, websocket: WebSocket, incoming: IncomingCall, waiting_calls: WaitingCalls) -> None:
        self._websocket = websocket
        self._incoming = incoming
        self._waiting_calls = waiting_calls
        self._is_open = False

    @property
    def query(self) -> bytes:
        """The query of the request, percent-encoded."""
        query: bytes = self._websocket.scope["query_string"]
        return query

    @property
    def path_params(self) -> dict[str, str]:
        """The variables in the path of the request."""
        return self._websocket.path_params

    async def open(self) -> None:
        """Accepts the WebSocket, also of a caller that will be refused: a browser shows its page no other answer."""
        headers = [(b"x-request-id", self._incoming.request_id.encode())]
        await self._deliver(self._websocket.accept(headers=headers))
        self._is_open = True

    async def receive(self, holdings: Holdings) -> bytes | str | None:
        """The caller's next message: binary or text; None after the caller has closed.

        Args:
            holdings: what the call gives back if another call needs it more.

        Raises:
            IdleCallError: nothing came for a while, and another call needed the place.
            UnauthenticatedError, PermissionDeniedError: the token is no longer valid, or has lost its scope.
        """
        call = Waiting(holdings.client, holdings.keeps_s, holdings.give_back, asyncio.timeout(None))
        message: Message = await self._waiting_calls.receive(self._websocket.receive(), call, "")
        if message["type"] == "websocket.disconnect":
            self._is_open = False
            return None
        self._incoming.authorization.check_again()
        data: bytes | str | None = message.get("bytes")
        return data if data is not None else message["text"]

    async def send(self, data: bytes | str) -> None:
        """Sends a message: binary or text.

        Raises:
            StalledReaderError: the caller did not read the one before in time. The connection is gone then.
        """
        kind = "text" if isinstance(data, str) else "bytes"
        await self._deliver(self._websocket.send({"type": "websocket.send", kind: data}))

    async def end(self, last_message: str, code: int, reason: str) -> None:
        """Sends the last message and closes, unless the caller has."""
        if self._is_open:
            await self.send(last_message)
            self._is_open = False
            await self._deliver(self._websocket.close(code, reason))

    async def _deliver(self, sending: Awaitable[None]) -> None:
        try:
            await sending
        except StalledReaderError:
            self._is_open = False
            raise
        except WebSocketDisconnect:  # the caller has left: nobody waits for this call
            self._is_open = False
            raise asyncio.CancelledError from None
