"""The messages of a caller: each is received in a limited time, checked, and only then parsed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Self, cast

from grpc import aio

from patchserve_server.domain.errors import PatchserveError
from patchserve_server.rpc.calls import Context
from patchserve_server.rpc.parsing import MessageParser
from patchserve_server.serving.admission import NOTHING, Capacity, Permit
from patchserve_server.serving.reading_places import ReadingPlaces
from patchserve_server.serving.reception import Holdings, Keeps
from patchserve_server.serving.waiting_calls import Waiting, WaitingCalls


class ReceivedMessages:
    """The bytes of each message that a call receives.

    gRPC's own iterator keeps the last message of a call until the garbage collector finds it.
    """

    def __init__(self, context: Context) -> None:
        self._context = context

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        data = await self._context.read()
        if data is aio.EOF:
            raise StopAsyncIteration
        return cast(bytes, data)


class Requests:
    """The messages of one call.

    The first is received in a reading place. For a single message with images, the permit grows to the capacity that
    it needs: before it is received, so that a rejected caller cannot send it, and again when its size is known.

    Args:
        received: the bytes of each message, as gRPC receives them.
        parser: checks and parses them.
        waiting_calls: where the call is counted while it waits for a message.
        places: the reading places for the first message.
        first_timeout_s: how long the first message may take.
        next_timeout_s: how long each later message may take; None: as long as the caller likes.
        holdings: what the call holds.
        permit: of a call with one message; None: its messages are not counted here.
        initial: what the permit needs before the message is received.
    """

    def __init__(
        self,
        received: AsyncIterator[bytes],
        parser: MessageParser,
        *,
        waiting_calls: WaitingCalls,
        places: ReadingPlaces,
        first_timeout_s: float,
        next_timeout_s: float | None,
        holdings: Holdings,
        permit: Permit | None = None,
        initial: Capacity = NOTHING,
    ) -> None:
        self._received = received
        self._parser = parser
        self._waiting_calls = waiting_calls
        self._places = places
        self._first_timeout_s = first_timeout_s
        self._next_timeout_s = next_timeout_s
        self._holdings = holdings
        self._permit = permit
        self._initial = initial
        self._is_first = True

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:  # noqa: ANN401 - a message of any method
        if self._is_first:
            self._is_first = False
            data = await self._first()
        else:
            data = await self._receive(self._holdings.keeps_s, self._next_timeout_s, self._holdings.give_back)
        if data is None:
            raise StopAsyncIteration
        try:
            return await self._parse(data)
        except PatchserveError as error:
            failure = error.copy()  # without its traceback, which would keep the message
        finally:
            del data
        try:
            raise failure
        finally:
            del failure  # its traceback refers to this frame: a cycle

    async def _parse(self, data: bytes) -> Any:  # noqa: ANN401
        self._parser.check_size(data)
        number_bytes = await self._parser.check_parts(data)
        self._grow(len(data) + number_bytes)
        return await self._parser.parse(data)

    async def _first(self) -> bytes | None:
        async with self._places.place(self._holdings.client) as place:
            if self._permit is not None:
                self._permit.grow(self._initial)

            def give_back() -> None:
                place.give_back()
                self._holdings.give_back()

            keeps_s = {self._places: self._places.keeps_s, **self._holdings.keeps_first_s}
            data = await self._receive(keeps_s, self._first_timeout_s, give_back, is_first=True)
            if data is not None and len(data) <= self._parser.max_bytes:
                self._grow(len(data))  # counted before the place is given to others
            return data

    async def _receive(
        self, keeps_s: Keeps, limit_s: float | None, give_back: Callable[[], None], *, is_first: bool = False
    ) -> bytes | None:
        """The next message; None after the last one."""
        call = Waiting(self._holdings.client, keeps_s, give_back, asyncio.timeout(limit_s), is_first)
        late = f"No message arrived within {limit_s or 0:g} s. Send the first one together with the call."
        return await self._waiting_calls.receive(anext(self._received, None), call, late)

    def _grow(self, nbytes: int) -> None:
        if self._permit is not None:
            self._permit.grow(Capacity(self._initial.count, min(nbytes, self._parser.max_bytes)))
