"""Runs a stream for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable
from contextlib import aclosing
from typing import TypeVar, cast

from patchserve.v1.stream_pb2 import InferStreamRequest, InferStreamResponse
from patchserve_client._errors import PatchserveError
from patchserve_client._stream import MakeRequest
from patchserve_client._stream_state import StreamState
from patchserve_client._types import Frame, FrameResult, ImageSource, StreamNotice

_T = TypeVar("_T")

Connect = Callable[[AsyncGenerator[InferStreamRequest]], AsyncGenerator[InferStreamResponse]]


async def stream(
    state: StreamState,
    frames: AsyncIterable[Frame | ImageSource] | Iterable[Frame | ImageSource],
    make_request: MakeRequest,
    connect: Connect,
    on_notice: Callable[[StreamNotice], None] | None,
) -> AsyncGenerator[FrameResult]:
    """Like `_stream.stream`."""
    async with aclosing(_Sender(state, frames, make_request)) as sender:
        while (delay_s := state.connect_after_s) is not None:
            await asyncio.sleep(delay_s)
            async with aclosing(connect(sender.connect())) as messages:
                while state.is_connected:
                    event = await _read(state, messages)
                    if isinstance(event, FrameResult):
                        yield event
                    elif event is not None and on_notice is not None:
                        on_notice(event)


async def _read(state: StreamState, messages: AsyncIterator[InferStreamResponse]) -> FrameResult | StreamNotice | None:
    try:
        with state.reading():
            message = await anext(messages, None)
    except PatchserveError as error:
        return state.lose(error)
    return state.receive(message)


class _Sender:
    """Reads frames and creates the requests of each connection."""

    def __init__(
        self,
        state: StreamState,
        frames: AsyncIterable[Frame | ImageSource] | Iterable[Frame | ImageSource],
        make_request: MakeRequest,
    ) -> None:
        self._state = state
        self._frames = aiter(frames if isinstance(frames, AsyncIterable) else _read_in_threads(frames))
        self._make_request = make_request
        self._reading: asyncio.Task[None] | None = None

    def connect(self) -> AsyncGenerator[InferStreamRequest]:
        """Start a connection; returns its requests."""
        return self._requests(self._state.connect())

    async def aclose(self) -> None:
        """Stop reading frames."""
        if self._reading is not None:
            self._reading.cancel()

    async def _requests(self, connection: int) -> AsyncGenerator[InferStreamRequest]:
        while self._state.is_sending(connection):
            for request in self._state.requests(connection):
                yield request
            if self._state.needs_frame(connection):
                if self._reading is None or self._reading.done():
                    self._reading = asyncio.create_task(self._read_frame())
                await asyncio.shield(self._reading)  # reading a frame continues if the connection ends

    async def _read_frame(self) -> None:
        try:
            self._state.add_frame(await asyncio.to_thread(self._make_request, await anext(self._frames)))
        except StopAsyncIteration:
            self._state.end_frames()
        except Exception as error:  # noqa: BLE001 - raised in the caller's task; gRPC would log it and hide it
            self._state.end_frames(error)


async def _read_in_threads(items: Iterable[_T]) -> AsyncIterator[_T]:
    """The items of an iterable that may block, such as the frames of a camera."""
    iterator, end = iter(items), object()
    while (item := await asyncio.to_thread(next, iterator, end)) is not end:
        yield cast(_T, item)
