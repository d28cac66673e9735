"""The client for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Self, TypeVar, Unpack

import grpc

from patchserve.v1 import service_pb2_grpc
from patchserve.v1.reference_pb2 import LoadReferenceStreamResponse
from patchserve.v1.stream_pb2 import InferStreamRequest, InferStreamResponse
from patchserve_client import _aio_stream, _calls, _loads
from patchserve_client import _types as types
from patchserve_client._aio_status import server_status_first
from patchserve_client._aio_transfer import AsyncTransferCalls
from patchserve_client._attempts import LoadAttempt
from patchserve_client._base import OpenChannel
from patchserve_client._errors import Cancelled, NotFound, PatchserveError, translate_errors
from patchserve_client._options import InferOptions, LoadOptions, StreamOptions
from patchserve_client._server_types import Health, ServerInfo, ServerStats
from patchserve_client._silence import SilenceLimit

_T = TypeVar("_T")


class AsyncClient(AsyncTransferCalls):
    """`Client` for asyncio: the same arguments, calls and errors, awaited.

    It belongs to the event loop of its first call, and can be created outside of it.

    Files are read and images encoded in worker threads. The event loop is never blocked.
    """

    _grpc = grpc.aio

    def _prepare(self) -> None:
        self._channel: OpenChannel | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def _opened(self) -> OpenChannel:
        """A channel of grpc.aio works only in the loop in which it is opened: that of the first call."""
        loop = asyncio.get_running_loop()
        if self._channel is None:
            self._channel, self._loop = self._open(), loop
        if self._loop is not loop:
            raise RuntimeError("This AsyncClient was first used in another event loop. Create one for each loop.")
        return self._channel

    @property
    def _stub(self) -> service_pb2_grpc.PatchCoreServiceAsyncStub:
        stub: service_pb2_grpc.PatchCoreServiceAsyncStub = self._opened.service
        return stub

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection. Calls in progress end with Cancelled."""
        await self._opened.channel.close()

    async def load_reference(
        self,
        images: types.ImageSource | Iterable[types.ImageSource],
        reference_id: str = "default",
        *,
        timeout_s: float | None = None,
        **options: Unpack[LoadOptions],
    ) -> types.ReferenceInfo:
        """Like `Client.load_reference`. Worker threads read `images`, one at a time."""
        load = await asyncio.to_thread(_loads.load, images, reference_id, options)
        deadline_s = self._load_deadline_s(timeout_s)
        if isinstance(load, _calls.Call):
            return await self._run(load, deadline_s)
        attempt = LoadAttempt(load, self._own, deadline_s)
        while True:
            try:
                response = await self._upload_images(attempt)
            except PatchserveError as error:
                await asyncio.sleep(attempt.pause_s(error))
            else:
                attempt.learn(response)
                return load.convert(response)

    async def _upload_images(self, attempt: LoadAttempt) -> LoadReferenceStreamResponse:
        messages = attempt.messages()
        with self._translate_errors():
            metadata = self._connection.metadata(attempt.reference_id)
            call = self._stub.LoadReferenceStream(timeout=attempt.remaining_s, metadata=metadata)
            try:
                async with server_status_first(call):
                    while (message := await asyncio.to_thread(next, messages, None)) is not None:
                        await call.write(message)
                    await call.done_writing()
                    return await call
            finally:
                call.cancel()  # the server must not build a reference from a part of the images

    async def infer(
        self,
        image: types.ImageSource,
        reference_id: str = "default",
        *,
        timeout_s: float | None = None,
        **options: Unpack[InferOptions],
    ) -> types.InferenceResult:
        """Like `Client.infer`."""
        return await self._run(await asyncio.to_thread(_calls.infer, image, reference_id, options), timeout_s)

    def infer_stream(
        self,
        frames: AsyncIterable[types.Frame | types.ImageSource] | Iterable[types.Frame | types.ImageSource],
        reference_id: str = "default",
        *,
        timeout_s: float | None = None,
        resume_for_s: float = 0.0,
        on_notice: Callable[[types.StreamNotice], None] | None = None,
        **options: Unpack[StreamOptions],
    ) -> AsyncGenerator[types.FrameResult]:
        """Like `Client.infer_stream`. Another task reads `frames`; it ends with the stream. Worker threads read a plain
        iterable, which may block.

        Leaving the loop early cancels the call when the generator is closed: at once with `contextlib.aclosing`,
        otherwise when it is garbage-collected.
        """
        state = _calls.stream_state(reference_id, options, resume_for_s, self._own)
        limit = SilenceLimit(state, self._silence_s(timeout_s))
        connect = partial(self._connect_stream, limit)
        return _aio_stream.stream(state, frames, _calls.frame_requests(options), connect, on_notice)

    async def _connect_stream(
        self, limit: SilenceLimit, requests: AsyncGenerator[InferStreamRequest]
    ) -> AsyncGenerator[InferStreamResponse]:
        with self._translate_errors():
            call = self._stub.InferStream(requests, metadata=self._connection.metadata(limit.reference_id))
            try:
                async with limit.watch_async(call.cancel), server_status_first(call):
                    async for message in call:
                        yield message
            finally:
                call.cancel()

    async def get_reference(
        self, reference_id: str = "default", *, timeout_s: float | None = None
    ) -> types.ReferenceInfo:
        """Like `Client.get_reference`."""
        return await self._run(_calls.get_reference(reference_id), timeout_s)

    async def list_references(self, *, timeout_s: float | None = None) -> AsyncIterator[types.ReferenceInfo]:
        """Like `Client.list_references`."""
        page_token = ""
        while True:
            page, page_token = await self._run(_calls.list_references(page_token), timeout_s)
            for reference in page:
                yield reference
            if not page_token:
                return

    async def list_loads(self, reference_id: str = "", *, timeout_s: float | None = None) -> list[types.LoadProgress]:
        """Like `Client.list_loads`."""
        return await self._run(_calls.list_loads(reference_id), timeout_s)

    async def tune_reference(
        self, reference_id: str, sensitivity: float, *, expected_revision: str = "", timeout_s: float | None = None
    ) -> types.ReferenceInfo:
        """Like `Client.tune_reference`."""
        call = _calls.tune_reference(reference_id, sensitivity, expected_revision)
        return await self._run(call, self._load_deadline_s(timeout_s))

    async def restore_reference(
        self,
        reference_id: str,
        *,
        revision: str = "",
        expected_revision: str = "",
        timeout_s: float | None = None,
    ) -> types.ReferenceInfo:
        """Like `Client.restore_reference`."""
        call = _calls.restore_reference(reference_id, revision, expected_revision)
        return await self._run(call, self._load_deadline_s(timeout_s))

    async def reference_history(
        self, reference_id: str = "default", *, timeout_s: float | None = None
    ) -> list[types.KeptRevision]:
        """Like `Client.reference_history`."""
        return await self._run(_calls.reference_history(reference_id), timeout_s)

    async def reference_image(
        self,
        reference_id: str = "default",
        index: int = 0,
        *,
        expected_revision: str = "",
        timeout_s: float | None = None,
    ) -> types.EncodedReferenceImage:
        """Like `Client.reference_image`."""
        return await self._run(_calls.reference_image(reference_id, index, expected_revision), timeout_s)

    async def delete_reference(
        self, reference_id: str, *, expected_revision: str = "", timeout_s: float | None = None
    ) -> str:
        """Like `Client.delete_reference`."""
        return await self._run(_calls.delete_reference(reference_id, expected_revision), timeout_s)

    async def server_info(self, *, timeout_s: float | None = None) -> ServerInfo:
        """Like `Client.server_info`."""
        return await self._run(_calls.server_info(), timeout_s)

    async def server_stats(self, *, timeout_s: float | None = None) -> ServerStats:
        """Like `Client.server_stats`."""
        return await self._run(_calls.server_stats(), timeout_s)

    async def health(self, *, timeout_s: float | None = None) -> Health:
        """Like `Client.health`."""
        alive = await self._run(_calls.health(""), timeout_s)
        try:
            ready = await self._run(_calls.health(_calls.READINESS_SERVICE), timeout_s)
        except NotFound:  # the server does not report its readiness yet
            ready = False
        return Health(alive, ready)

    async def _run(self, call: _calls.Call[_T], timeout_s: float | None) -> _T:
        attempt = self._attempt(call, timeout_s)
        while True:
            try:
                with self._translate_errors():
                    response = await self._start(call.method, attempt)
            except PatchserveError as error:
                await asyncio.sleep(attempt.pause_s(error))
            else:
                attempt.learn(response)
                return call.convert(response)

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Like `translate_errors`. A closed channel also raises CancelledError, even if this task is not cancelled."""
        try:
            with translate_errors(self._connection):
                yield
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise Cancelled("The call was cancelled, for example because the client was closed.") from None
