"""Runs a stream for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from contextlib import aclosing

from patchserve.v1.stream_pb2 import InferStreamRequest, InferStreamResponse
from patchserve_client._errors import PatchserveError
from patchserve_client._requests import frame_request
from patchserve_client._stream_state import StreamState
from patchserve_client._types import Frame, FrameResult, ImageSource, StreamNotice

Connect = Callable[[AsyncGenerator[InferStreamRequest]], AsyncGenerator[InferStreamResponse]]


async def stream(
    state: StreamState,
    frames: AsyncIterable[Frame | ImageSource],
    connect: Connect,
    on_notice: Callable[[StreamNotice], None] | None,
) -> AsyncGenerator[FrameResult]:
    """Like `_stream.stream`."""
    async with aclosing(_Sender(state, frames)) as sender:
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
        message = await anext(messages, None)
    except PatchserveError as error:
        return state.lose(error)
    return state.receive(message)


class _Sender:
    """Reads frames and creates the requests of each connection."""

    def __init__(self, state: StreamState, frames: AsyncIterable[Frame | ImageSource]) -> None:
        self._state = state
        self._frames = aiter(frames)
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
            self._state.add_frame(await asyncio.to_thread(frame_request, await anext(self._frames)))
        except StopAsyncIteration:
            self._state.end_frames()
        except Exception as error:  # noqa: BLE001 - raised in the caller's task; gRPC would log it and hide it
            self._state.end_frames(error)
