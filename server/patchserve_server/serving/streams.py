"""The streams, from their config to their end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Self

from patchserve_server.domain.errors import DrainingError, InvalidInputError, PatchserveError, ReferenceNotFoundError
from patchserve_server.domain.events import NOBODY, Events
from patchserve_server.domain.images import SentImage
from patchserve_server.domain.inspection import Inspection
from patchserve_server.domain.reference import ReferenceInfo
from patchserve_server.domain.stream import (
    Frame,
    NoticeKind,
    StreamConfig,
    StreamEvent,
    StreamNotice,
    StreamReady,
)
from patchserve_server.serving.admission import Admission
from patchserve_server.serving.engine_ports import ReferenceInUse, References
from patchserve_server.serving.fairness import FlowKey
from patchserve_server.serving.frame_queue import FrameQueue, Inspect
from patchserve_server.serving.inspector import Inspector
from patchserve_server.serving.tasks import retrieve_error

MAX_FRAME_ID_BYTES = 128


class Streams:
    """Runs all streams. Each keeps the revision that it started with."""

    def __init__(
        self,
        catalog: References,
        inspector: Inspector,
        admission: Admission,
        *,
        max_active: int,
        events: Events = NOBODY,
    ) -> None:
        self._catalog = catalog
        self._inspector = inspector
        self._admission = admission
        self._max_active = max_active
        self._events = events
        self._open: set[_Stream] = set()
        self._draining = False

    async def run(self, client: str, config: StreamConfig, frames: AsyncIterator[Frame]) -> AsyncGenerator[StreamEvent]:
        """The stream's events: ready first, then an outcome for each frame, and notices. Close it to stop all work.

        Raises:
            ReferenceNotFoundError, RevisionMismatchError: at once. ReferenceNotFoundError also after the last outcome,
                if the reference was deleted in the meantime.
            DrainingError: after the last outcome, if the server shuts down.
            StreamProtocolError: after the last outcome, if `frames` raised it.
        """
        async with self._catalog.use(config.reference_id, config.expected_revision) as reference:
            info, flow = reference.info, FlowKey.of_stream(client)
            queue = FrameQueue(
                config,
                self._inspect_with(reference, config, flow),
                max_active=self._max_active,
                admission=self._admission,
                flow=flow,
                events=self._events,
            )
            with (
                queue,
                _Stream(info, queue) as stream,
                self._registered(stream),
                self._catalog.listen(info.reference_id, stream.reference_changed),
            ):
                yield StreamReady(info.reference_id, info.revision, config.max_in_flight)
                stream.start(frames)
                if self._draining:
                    stream.drain()
                async for event in queue.events():
                    yield event
                await stream.ended()

    @contextmanager
    def _registered(self, stream: _Stream) -> Iterator[None]:
        self._open.add(stream)
        try:
            yield
        finally:
            self._open.discard(stream)

    def drain(self) -> None:
        """Ends every stream, open or new, with DrainingError after the outcomes of its accepted frames."""
        self._draining = True
        for stream in list(self._open):
            stream.drain()

    def end(self, error: PatchserveError) -> None:
        """Ends every open stream with this error: its reference cannot be used any more."""
        for stream in list(self._open):
            stream.end(error)

    def _inspect_with(self, reference: ReferenceInUse, config: StreamConfig, flow: FlowKey) -> Inspect:
        async def inspect(frame: Frame) -> Inspection:
            if len(frame.frame_id.encode()) > MAX_FRAME_ID_BYTES:
                raise InvalidInputError("frame.frame_id", f"frame.frame_id is at most {MAX_FRAME_ID_BYTES} bytes.")
            return await self._inspector.inspect(
                reference, SentImage(frame.image, config.white_level), config.output, flow, name=frame.frame_id
            )

        return inspect


class _Stream:
    """The reader of one stream, and the error that ends the stream. Use it in a `with` statement."""

    def __init__(self, reference: ReferenceInfo, queue: FrameQueue) -> None:
        self.queue = queue
        self._reference = reference
        self._reader: asyncio.Task[None] | None = None
        self._end: PatchserveError | None = None

    def start(self, frames: AsyncIterator[Frame]) -> None:
        if self._end is None:
            self._reader = asyncio.create_task(self._read(frames))

    async def _read(self, frames: AsyncIterator[Frame]) -> None:
        try:
            async for frame in frames:
                await self.queue.put(frame)
                del frame  # it would stay in memory until the next one comes
        finally:
            self.queue.close()

    def reference_changed(self, reference: ReferenceInfo | None) -> None:
        if reference is None:
            self._stop(ReferenceNotFoundError(self._reference.reference_id))
            return
        if reference.revision == self._reference.revision:
            return  # loaded again with equal content
        message = (
            f'Reference "{reference.reference_id}" is now at revision {reference.revision}; this stream keeps '
            f"{self._reference.revision}. Open a new stream to use the new one."
        )
        self.queue.notify(StreamNotice(NoticeKind.REFERENCE_CHANGED, message))

    def drain(self) -> None:
        message = "The server is shutting down: it reads no more frames and answers the frames that it has accepted."
        self.queue.notify(StreamNotice(NoticeKind.DRAINING, message))
        self._stop(DrainingError())

    def end(self, error: PatchserveError) -> None:
        self._stop(error)

    def _stop(self, end: PatchserveError) -> None:
        self._end = self._end or end
        if self._reader is not None:
            self._reader.cancel()
        self.queue.close()  # a reader that has not run yet does not close it

    async def ended(self) -> None:
        """Raises the error that ended the stream, if there is one."""
        if self._end is not None:
            raise self._end
        if self._reader is not None:
            await self._reader

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Stops the reader. It awaits nothing, so no cancellation can interrupt it."""
        if self._reader is not None:
            self._reader.cancel()
            self._reader.add_done_callback(retrieve_error)
        self._reader = self._end = None  # the traceback of an error may refer to this object: a cycle
