"""The body of a request: received within limits of size and time, and counted while it is received."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from starlette.requests import ClientDisconnect, Request

from patchserve_server.contract.methods import InitialPermit, Method
from patchserve_server.domain.errors import InvalidInputError, RequestTooLargeError
from patchserve_server.serving.admission import NOTHING, ONE, Capacity, Permit
from patchserve_server.serving.reception import Holdings
from patchserve_server.serving.waiting_calls import Waiting, WaitingCalls

KEEPS_S: Final = 2.0  # how long a body keeps what it holds though others need it,
_STEADY_BYTES_PER_S: Final = 64 * 2**10  # and longer if this much of it comes in each second


def since_when(since_s: float, nbytes: int) -> float:
    """Since when a caller lets the server wait, after it has sent so many bytes: what comes steadily starts it anew.

    Bytes that came fast count for no later time, in which nothing comes.
    """
    return min(asyncio.get_running_loop().time(), since_s + nbytes / _STEADY_BYTES_PER_S)


class Body:
    """The body of one request. It can be read once.

    The permit of the call grows before bytes are received: at once if the request says its length, else chunk by chunk.
    If others need what it holds, a slow body loses it.

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
            InvalidInputError: it is compressed.
            QueueFullError: there is no capacity for it.
            MessageTimeoutError: it did not come in time.
            IdleCallError: it came slowly, and somebody else needed its place.
        """
        self._check_coding()
        self._permit.grow(self._initial)
        self._grow(int(self._request.headers.get("content-length", "0")))  # the server's parser has checked it
        received, stream, start_s = 0, self._request.stream(), asyncio.get_running_loop().time()
        since_s = start_s
        while chunk := await self._next(stream, start_s, since_s):
            received += len(chunk)
            since_s = since_when(since_s, len(chunk))
            self._grow(received)
            yield chunk

    async def _next(self, stream: AsyncIterator[bytes], start_s: float, since_s: float) -> bytes:
        """The next part, empty at the end."""
        keeps_s = dict(self._holdings.keeps_first_s)
        if self._permit.capacity != NOTHING:
            keeps_s[self._permit.admission] = KEEPS_S
        call = Waiting(
            self._holdings.client,
            keeps_s,
            self._holdings.give_back,
            asyncio.timeout_at(start_s + self._timeout_s),
            is_first=True,
            since_s=since_s,
        )
        late = f"The body did not arrive within {self._timeout_s:g} s."
        try:
            return await self._waiting_calls.receive(anext(stream, b""), call, late)
        except ClientDisconnect:
            raise asyncio.CancelledError from None

    def _check_coding(self) -> None:
        for header, allowed in (("content-encoding", "identity"), ("transfer-encoding", "chunked")):
            if self._request.headers.get(header, allowed).strip().lower() != allowed:
                raise InvalidInputError(header, "Send the body as it is, not compressed.")

    def _grow(self, nbytes: int) -> None:
        if nbytes > self.max_bytes:
            message = f"The body has more than {self.max_bytes:,} bytes, the most that this method takes."
            raise RequestTooLargeError(message)
        self._permit.grow(Capacity(self._initial.count, nbytes))
