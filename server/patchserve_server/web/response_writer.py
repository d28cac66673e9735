"""Writes the response of a call."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus

from starlette.datastructures import MutableHeaders
from starlette.types import Message, Send


class ResponseWriter:
    """Sends the messages of one response, with the call's id.

    Args:
        send: of the server. It raises a StalledReaderError if the caller does not read.
        request_id: the response gets it as a header.
    """

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id
        self.has_started = False

    async def send(self, message: Message) -> None:
        """Sends one message of ASGI.

        Raises:
            StalledReaderError: the caller did not read in time. The connection is gone then.
        """
        if message["type"] == "http.response.start":
            self.has_started = True
            MutableHeaders(scope=message)["x-request-id"] = self._request_id
        await self._send(message)

    async def send_part(self, part: bytes, headers: Iterable[tuple[bytes, bytes]], *, is_last: bool = False) -> None:
        """Sends a part of a response that goes on; before the first one its start, with these headers.

        Raises:
            StalledReaderError: as `send`.
        """
        if not self.has_started:
            await self.send({"type": "http.response.start", "status": HTTPStatus.OK, "headers": list(headers)})
        await self.send({"type": "http.response.body", "body": part, "more_body": not is_last})
