"""The client for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self, TypeVar

import grpc
from grpc_health.v1 import health_pb2_grpc

from patchserve.v1 import service_pb2_grpc
from patchserve.v1.stream_pb2 import InferStreamRequest, InferStreamResponse
from patchserve_client import _aio_stream, _calls, _connection, _convert
from patchserve_client._aio_status import server_status_first
from patchserve_client._connection import Connection, TlsConfig, TokenSource
from patchserve_client._errors import Cancelled, NotFound, translated
from patchserve_client._resuming import Patience
from patchserve_client._types import (
    Frame,
    FrameResult,
    Health,
    HeatmapScale,
    ImageSource,
    InferenceResult,
    LoadMode,
    LoadProgress,
    OverflowPolicy,
    OverlayFormat,
    Polygon,
    ReferenceInfo,
    ResultOrdering,
    ScoringProfile,
    ServerInfo,
    StreamNotice,
)

_T = TypeVar("_T")


class AsyncClient:
    """`Client` for asyncio: the same arguments, calls and errors, awaited. Make it inside the loop that uses it.

    Files are read and images encoded in worker threads, so that the loop is never held.
    """

    def __init__(
        self,
        server: str = _connection.DEFAULT_SERVER,
        *,
        timeout_s: float = _connection.DEFAULT_TIMEOUT_S,
        load_timeout_s: float = _connection.DEFAULT_LOAD_TIMEOUT_S,
        tls: TlsConfig | None = None,
        token: TokenSource = None,
        insecure_token: bool = False,
        max_message_mib: int = _connection.DEFAULT_MAX_MESSAGE_MIB,
    ) -> None:
        self._connection = Connection(server, timeout_s, load_timeout_s, tls, token, max_message_mib, insecure_token)
        credentials, options = self._connection.credentials(), self._connection.options()
        if credentials is None:
            self._channel = grpc.aio.insecure_channel(server, options)
        else:
            self._channel = grpc.aio.secure_channel(server, credentials, options)
        self._stub = service_pb2_grpc.PatchCoreServiceStub(self._channel)
        self._health_stub = health_pb2_grpc.HealthStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connection; calls under way end with Cancelled."""
        await self._channel.close()

    async def load_reference(
        self,
        images: ImageSource | Iterable[ImageSource],
        reference_id: str = "default",
        *,
        mode: LoadMode | str = LoadMode.REPLACE,
        profile: ScoringProfile | str | None = None,
        coreset_ratio: float | None = None,
        coreset_max_patches: int | None = None,
        search_radius: float | None = None,
        region_of_interest: Iterable[Polygon] = (),
        approximate_search: bool | None = None,
        expected_revision: str = "",
        timeout_s: float | None = None,
    ) -> ReferenceInfo:
        """As `Client.load_reference`. `images` is drawn in worker threads, one at a time."""
        load = await asyncio.to_thread(
            _calls.prepare_load,
            images,
            reference_id=reference_id,
            mode=mode,
            profile=profile,
            coreset_ratio=coreset_ratio,
            coreset_max_patches=coreset_max_patches,
            search_radius=search_radius,
            region_of_interest=region_of_interest,
            approximate_search=approximate_search,
            expected_revision=expected_revision,
        )
        deadline_s = self._connection.load_timeout_s if timeout_s is None else timeout_s
        if isinstance(load, _calls.Call):
            return await self._run(load, deadline_s)
        with self._translated():
            call = self._stub.LoadReferenceStream(timeout=deadline_s, metadata=self._connection.metadata())
            try:
                async with server_status_first(call):
                    while (message := await asyncio.to_thread(next, load.messages, None)) is not None:
                        await call.write(message)
                    await call.done_writing()
                    return load.convert(await call)
            finally:
                call.cancel()  # half of the images must not become the reference

    async def infer(
        self,
        image: ImageSource,
        reference_id: str = "default",
        *,
        overlay: bool = False,
        heatmap_scale: HeatmapScale | str | None = None,
        score_map: bool = False,
        max_regions: int | None = None,
        sensitivity: float | None = None,
        overlay_format: OverlayFormat | str = OverlayFormat.PNG,
        overlay_max_side_px: int | None = None,
        expected_revision: str = "",
        timeout_s: float | None = None,
    ) -> InferenceResult:
        """As `Client.infer`."""
        call = await asyncio.to_thread(
            _calls.infer,
            image,
            reference_id=reference_id,
            overlay=overlay,
            heatmap_scale=heatmap_scale,
            score_map=score_map,
            max_regions=max_regions,
            sensitivity=sensitivity,
            overlay_format=overlay_format,
            overlay_max_side_px=overlay_max_side_px,
            expected_revision=expected_revision,
        )
        return await self._run(call, timeout_s)

    def infer_stream(
        self,
        frames: AsyncIterable[Frame | ImageSource],
        reference_id: str = "default",
        *,
        overlay: bool = False,
        heatmap_scale: HeatmapScale | str | None = None,
        score_map: bool = False,
        max_regions: int | None = None,
        sensitivity: float | None = None,
        overlay_format: OverlayFormat | str = OverlayFormat.PNG,
        overlay_max_side_px: int | None = None,
        max_in_flight: int | None = None,
        overflow: OverflowPolicy | str = OverflowPolicy.BLOCK,
        ordering: ResultOrdering | str = ResultOrdering.INPUT,
        frame_timeout_s: float | None = None,
        expected_revision: str = "",
        resume_for_s: float = 0.0,
        on_notice: Callable[[StreamNotice], None] | None = None,
    ) -> AsyncGenerator[FrameResult]:
        """As `Client.infer_stream`. `frames` is read by another task, which ends with the stream.

        After leaving the loop early the call is cancelled as soon as the generator is closed: at once with
        `contextlib.aclosing`, else when it is collected.
        """
        config = _convert.stream_config(
            reference_id=reference_id,
            output=_convert.output_options(
                overlay=overlay,
                heatmap_scale=heatmap_scale,
                score_map=score_map,
                max_regions=max_regions,
                sensitivity=sensitivity,
                overlay_format=overlay_format,
                overlay_max_side_px=overlay_max_side_px,
            ),
            max_in_flight=max_in_flight,
            overflow=overflow,
            ordering=ordering,
            frame_timeout_s=frame_timeout_s,
            expected_revision=expected_revision,
        )
        return _aio_stream.stream(config, frames, self._connect_stream, on_notice, Patience(resume_for_s))

    async def _connect_stream(
        self, requests: AsyncGenerator[InferStreamRequest]
    ) -> AsyncGenerator[InferStreamResponse]:
        with self._translated():
            call = self._stub.InferStream(requests, metadata=self._connection.metadata())
            try:
                async with server_status_first(call):
                    async for message in call:
                        yield message
            finally:
                call.cancel()

    async def get_reference(self, reference_id: str = "default", *, timeout_s: float | None = None) -> ReferenceInfo:
        """As `Client.get_reference`."""
        return await self._run(_calls.get_reference(reference_id), timeout_s)

    async def list_references(self, *, timeout_s: float | None = None) -> AsyncIterator[ReferenceInfo]:
        """As `Client.list_references`."""
        page_token = ""
        while True:
            page, page_token = await self._run(_calls.list_references(page_token), timeout_s)
            for reference in page:
                yield reference
            if not page_token:
                return

    async def list_loads(self, reference_id: str = "", *, timeout_s: float | None = None) -> list[LoadProgress]:
        """As `Client.list_loads`."""
        return await self._run(_calls.list_loads(reference_id), timeout_s)

    async def delete_reference(
        self, reference_id: str, *, expected_revision: str = "", timeout_s: float | None = None
    ) -> str:
        """As `Client.delete_reference`."""
        return await self._run(_calls.delete_reference(reference_id, expected_revision), timeout_s)

    async def server_info(self, *, timeout_s: float | None = None) -> ServerInfo:
        """As `Client.server_info`."""
        return await self._run(_calls.server_info(), timeout_s)

    async def health(self, *, timeout_s: float | None = None) -> Health:
        """As `Client.health`."""
        alive = await self._run(_calls.health(""), timeout_s)
        try:
            ready = await self._run(_calls.health(_calls.READINESS_SERVICE), timeout_s)
        except NotFound:
            ready = False
        return Health(alive, ready)

    async def _run(self, call: _calls.Call[_T], timeout_s: float | None) -> _T:
        stub = self._health_stub if call.method == "Check" else self._stub
        deadline_s = self._connection.timeout_s if timeout_s is None else timeout_s
        with self._translated():
            answer = await getattr(stub, call.method)(
                call.request, timeout=deadline_s, metadata=self._connection.metadata()
            )
        return call.convert(answer)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """As `translated`. gRPC says CancelledError of a closed channel too, which is not this task's cancellation."""
        try:
            with translated(self._connection.server):
                yield
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise Cancelled("The call was cancelled, as by closing the client.") from None
