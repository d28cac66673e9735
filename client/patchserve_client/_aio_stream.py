"""`_stream` for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable

from patchserve.v1.stream_pb2 import InferStreamRequest, InferStreamResponse
from patchserve_client import _convert
from patchserve_client._errors import PatchserveError
from patchserve_client._resuming import Patience, Unanswered
from patchserve_client._types import Frame, FrameResult, ImageSource, StreamNotice

Connect = Callable[[AsyncGenerator[InferStreamRequest]], AsyncGenerator[InferStreamResponse]]


async def stream(
    config: InferStreamRequest,
    frames: AsyncIterable[Frame | ImageSource],
    connect: Connect,
    on_notice: Callable[[StreamNotice], None] | None,
    patience: Patience,
) -> AsyncGenerator[FrameResult]:
    """As `_stream.stream`."""
    sending = _Sending(config, frames, keep=patience.resumes)
    messages = connect(sending.messages())
    try:
        while True:
            try:
                message = await anext(messages, None)
            except PatchserveError as error:
                if patience.resumes and sending.is_complete:
                    break
                await asyncio.sleep(patience.delay_s(error))
                messages = connect(sending.messages())
                continue
            if message is None:
                break
            event = _convert.stream_event(message)
            if isinstance(event, FrameResult):
                patience.progress()
                yield sending.unanswered.answered(event)
            elif event is not None and on_notice is not None:
                on_notice(event)
            elif not sending.unanswered:
                patience.progress()
    finally:
        sending.close()
        await messages.aclose()
    if sending.failure is not None:
        raise sending.failure


class _Sending:
    """What each connection sends. What drawing a frame raises is kept in `failure`, and ends the frames."""

    def __init__(self, config: InferStreamRequest, frames: AsyncIterable[Frame | ImageSource], *, keep: bool) -> None:
        self.unanswered = Unanswered(keep=keep)
        self.failure: Exception | None = None
        self._config = config
        self._frames = aiter(frames)
        self._coming: asyncio.Future[InferStreamRequest | None] | None = None
        self._exhausted = False

    @property
    def is_complete(self) -> bool:
        """Whether every frame has its result."""
        return self._exhausted and not self.unanswered

    def messages(self) -> AsyncGenerator[InferStreamRequest]:
        """Those of a new connection."""
        return self._messages(self.unanswered.connect())

    async def _messages(self, connection: int) -> AsyncGenerator[InferStreamRequest]:
        yield self._config
        while (request := self.unanswered.again(connection) or await self._draw(connection)) is not None:
            yield request

    async def _draw(self, connection: int) -> InferStreamRequest | None:
        if self._coming is None:
            self._coming = asyncio.ensure_future(self._next())
        frame = await asyncio.shield(self._coming)  # a connection that ends must not end the frames
        if frame is None or not self.unanswered.is_current(connection):
            return None
        self._coming = None
        return self.unanswered.new(connection, frame)

    async def _next(self) -> InferStreamRequest | None:
        try:
            frame = await anext(self._frames)
            return await asyncio.to_thread(_convert.frame_request, frame)
        except StopAsyncIteration:
            pass
        except Exception as error:  # noqa: BLE001 - raised again in the caller's task
            self.failure = error
        self._exhausted = True
        return None

    def close(self) -> None:
        if self._coming is not None:
            self._coming.cancel()
