"""The WebSocket of one call: its messages come within limits of time, and go as long as the caller reads them."""

from __future__ import annotations

import asyncio

from starlette.responses import Response
from starlette.types import Message
from starlette.websockets import WebSocket

from patchserve_server.domain.errors import StalledReaderError
from patchserve_server.serving.reception import Holdings
from patchserve_server.serving.waiting_calls import Waiting, WaitingCalls
from patchserve_server.web.incoming import IncomingCall
from patchserve_server.web.listening import HttpListening


class Socket:
    """The WebSocket of one call.

    While nobody receives, the server reads at most one more message from the connection, so the caller has to wait.

    Args:
        websocket: Starlette's.
        incoming: the call.
        waiting_calls: where the call is counted while it waits for a message.
        listening: limits on messages.
    """

    def __init__(
        self, websocket: WebSocket, incoming: IncomingCall, waiting_calls: WaitingCalls, listening: HttpListening
    ) -> None:
        self._websocket = websocket
        self._incoming = incoming
        self._waiting_calls = waiting_calls
        self._first_timeout_s = listening.first_message_timeout_s
        self._holdings: Holdings | None = None  # None: not open yet
        self._is_first = True
        self._is_closed = False

    @property
    def was_open(self) -> bool:
        """Whether the WebSocket was ever accepted."""
        return self._holdings is not None

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent."""
        return self.was_open and not self._is_closed

    async def open(self, holdings: Holdings) -> None:
        """Accepts the WebSocket of an admitted call."""
        await self._websocket.accept(headers=[(b"x-request-id", self._incoming.request_id.encode())])
        self._holdings = holdings

    async def receive(self) -> bytes | str | None:
        """The caller's next message: binary or text; None after the caller has closed.

        Raises:
            MessageTimeoutError: the first one did not come in time.
            IdleCallError: nothing came for a while, and another call needed the place.
            DrainingError: the server drains, and nothing has come yet.
            UnauthenticatedError, PermissionDeniedError: the token is no longer valid, or has lost its scope.
        """
        if (holdings := self._holdings) is None:
            raise RuntimeError("The WebSocket is not open.")
        limit_s = self._first_timeout_s if self._is_first else None
        keeps_s = holdings.keeps_first_s if self._is_first else holdings.keeps_s
        call = Waiting(holdings.client, keeps_s, holdings.give_back, asyncio.timeout(limit_s), self._is_first)
        late = f"No message arrived within {self._first_timeout_s:g} s. Send the first one at once."
        message: Message = await self._waiting_calls.receive(self._websocket.receive(), call, late)
        self._is_first = False
        self._incoming.authorization.check_again()
        if message["type"] == "websocket.disconnect":
            self._is_closed = True
            return None
        data: bytes | str | None = message.get("bytes")
        return data if data is not None else message["text"]

    async def send(self, data: bytes | str) -> None:
        """Sends a message: binary or text.

        Raises:
            StalledReaderError: the caller did not read the one before in time. The connection is gone then.
        """
        kind = "text" if isinstance(data, str) else "bytes"
        await self._send({"type": "websocket.send", kind: data})

    async def close(self, code: int) -> None:
        """Closes the WebSocket, unless the caller has."""
        if self.is_open:
            self._is_closed = True
            await self._websocket.send({"type": "websocket.close", "code": code, "reason": ""})

    async def refuse(self, response: Response) -> None:
        """Answers with this response in place of a WebSocket."""
        response.headers["x-request-id"] = self._incoming.request_id
        await self._websocket.send_denial_response(response)

    async def _send(self, message: Message) -> None:
        try:
            await self._websocket.send(message)
        except StalledReaderError:
            self._is_closed = True
            raise
