"""The body of a request: received within limits of size and time, and counted while it is received."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from starlette.requests import ClientDisconnect, Request

from patchserve_server.contract.methods import InitialPermit, Method
from patchserve_server.domain.errors import InvalidInputError, MessageTimeoutError, RequestTooLargeError
from patchserve_server.serving.admission import NOTHING, ONE, Capacity, Permit
from patchserve_server.serving.reception import Holdings
from patchserve_server.serving.waiting_calls import Waiting, WaitingCalls

_KEEPS_S: Final = 2.0  # how long a body that does not come keeps what it holds


class Body:
    """The body of one request. It can be read once.

    The permit of the call grows before bytes are received: at once if the request says its length, else chunk by chunk.

    Args:
        request: Starlette's.
        permit: of the call.
        method: the largest body, and what the permit needs before it is received.
        max_bytes: the largest body of a method with images.
        timeout_s: how long the whole body may take.
        waiting_calls: where the call is counted while it waits.
        holdings: what the call holds.
    """

    def __init__(
        self,
        request: Request,
        permit: Permit,
        method: Method,
        *,
        max_bytes: int,
        timeout_s: float,
        waiting_calls: WaitingCalls,
        holdings: Holdings,
    ) -> None:
        self._request = request
        self._permit = permit
        self._initial = ONE if method.initial_permit is InitialPermit.IMAGE else NOTHING
        self.max_bytes = method.max_request_bytes(max_bytes)
        self._timeout_s = timeout_s
        self._waiting_calls = waiting_calls
        self._holdings = holdings

    async def read(self, *, max_bytes: int | None = None) -> bytes:
        """The whole body.

        Args:
            max_bytes: the largest one, where a message takes more bytes than over gRPC; None: as there.

        Raises:
            The errors of `chunks`.
        """
        self.max_bytes = max_bytes or self.max_bytes
        return b"".join([chunk async for chunk in self.chunks()])

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body, as it comes.

        Raises:
            RequestTooLargeError: it has more bytes than this method takes, or says so.
            QueueFullError: there is no capacity for it.
            MessageTimeoutError: it did not come in time, or somebody else needed its place.
        """
        self._permit.grow(self._initial)
        received = 0
        self._grow(self._said_length())
        stream = self._request.stream()
        deadline_s = asyncio.get_running_loop().time() + self._timeout_s
        while True:
            chunk = await self._next(stream, deadline_s)
            if chunk is None:
                return
            received += len(chunk)
            self._grow(received)
            yield chunk

    async def _next(self, stream: AsyncIterator[bytes], deadline_s: float) -> bytes | None:
        limit = asyncio.timeout_at(deadline_s)
        keeps_s = {self._permit: _KEEPS_S, **self._holdings.keeps_first_s}
        call = Waiting(self._holdings.client, keeps_s, self._holdings.give_back, limit, is_first=True)
        try:
            async with limit:
                with self._waiting_calls.add(call):
                    chunk = await anext(stream, None)
            if call.error is None:
                return chunk
        except TimeoutError:
            if call.error is None and not limit.expired():
                raise  # from a system call, not from this time limit
        except ClientDisconnect:
            raise asyncio.CancelledError from None
        if call.error is not None:
            raise call.error.copy()
        raise MessageTimeoutError(f"The body did not arrive within {self._timeout_s:g} s.")

    def _said_length(self) -> int:
        text = self._request.headers.get("content-length", "0")
        if not text.isdecimal():
            raise InvalidInputError("content-length", "Content-Length must be a whole number.")
        return int(text)

    def _grow(self, nbytes: int) -> None:
        if nbytes > self.max_bytes:
            message = f"The body has more than {self.max_bytes:,} bytes, the most that this method takes."
            raise RequestTooLargeError(message)
        self._permit.grow(Capacity(self._initial.count, nbytes))
