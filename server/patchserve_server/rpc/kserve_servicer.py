"""The Open Inference Protocol, off the same engine: each method converts, calls the application, converts back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from grpc import aio

from patchserve.kserve import open_inference_pb2 as pb
from patchserve.kserve import open_inference_pb2_grpc
from patchserve_server.domain.errors import (
    DrainingError,
    ReferenceDamagedError,
    ReferenceNotFoundError,
    RevisionMismatchError,
)
from patchserve_server.rpc.admission import client_of
from patchserve_server.rpc.convert import kserve
from patchserve_server.rpc.deadlines import deadline
from patchserve_server.rpc.interceptors import REQUEST_ID
from patchserve_server.rpc.servicer import PatchCoreServicer
from patchserve_server.serving.application import Application
from patchserve_server.serving.fairness import FlowKey
from patchserve_server.serving.streams import RETRY_AFTER_DRAIN_S

Context = aio.ServicerContext[Any, Any]


class KServeServicer(open_inference_pb2_grpc.GRPCInferenceServiceServicer):
    """inference.GRPCInferenceService. Ready as soon and as long as `main` is."""

    def __init__(self, main: PatchCoreServicer, version: str) -> None:
        self._main = main
        self._version = version
        self._stopping = False
        self._draining = asyncio.Event()

    def stop(self) -> None:
        """From now on it says that it is not ready."""
        self._stopping = True

    def drain(self) -> None:
        """Streams read no more, answer what they have, and end."""
        self._draining.set()

    async def ServerLive(self, request: pb.ServerLiveRequest, context: Context) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: pb.ServerReadyRequest, context: Context) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=self._main.is_ready and not self._stopping)

    async def ServerMetadata(self, request: pb.ServerMetadataRequest, context: Context) -> pb.ServerMetadataResponse:
        return pb.ServerMetadataResponse(name="patchserve", version=self._version)

    async def ModelReady(self, request: pb.ModelReadyRequest, context: Context) -> pb.ModelReadyResponse:
        reference_id, revision = kserve.model(request.name, request.version)
        if not self._main.is_ready:
            return pb.ModelReadyResponse(ready=False)
        try:
            self._main.application.catalog.info(reference_id, revision)
        except (ReferenceNotFoundError, ReferenceDamagedError, RevisionMismatchError):
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=True)

    async def ModelMetadata(self, request: pb.ModelMetadataRequest, context: Context) -> pb.ModelMetadataResponse:
        application = self._main.application
        info = application.catalog.info(*kserve.model(request.name, request.version))
        return kserve.metadata(info, application.detector.input_size_px)

    async def ModelInfer(self, request: pb.ModelInferRequest, context: Context) -> pb.ModelInferResponse:
        return await _infer(self._main.application, FlowKey(client_of(context)), request, context)

    async def ModelStreamInfer(
        self, request_iterator: AsyncIterator[pb.ModelInferRequest], context: Context
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        application, flow = self._main.application, FlowKey.of_stream(client_of(context))
        async with aclosing(self._until_drained(request_iterator)) as requests:
            async for request in requests:
                try:
                    response = await _infer(application, flow, request, context)
                except Exception as error:  # noqa: BLE001 - the caller gets it
                    yield kserve.stream_error(request, error, REQUEST_ID.get())
                else:
                    yield pb.ModelStreamInferResponse(infer_response=response)

    async def _until_drained(
        self, requests: AsyncIterator[pb.ModelInferRequest]
    ) -> AsyncGenerator[pb.ModelInferRequest]:
        """The caller's requests.

        Raises:
            DrainingError: the server shuts down.
        """
        draining = asyncio.create_task(self._draining.wait())
        coming: asyncio.Future[pb.ModelInferRequest | None] | None = None
        try:
            while True:
                coming = asyncio.ensure_future(_next(requests))
                await asyncio.wait({coming, draining}, return_when=asyncio.FIRST_COMPLETED)
                if not coming.done():
                    raise DrainingError("The server is shutting down; go on with another.", RETRY_AFTER_DRAIN_S)
                if (request := coming.result()) is None:
                    return
                yield request
        finally:
            draining.cancel()
            if coming is not None:
                coming.cancel()


async def _next(requests: AsyncIterator[pb.ModelInferRequest]) -> pb.ModelInferRequest | None:
    return await anext(aiter(requests), None)


async def _infer(
    application: Application, flow: FlowKey, request: pb.ModelInferRequest, context: Context
) -> pb.ModelInferResponse:
    limits = application.limits
    most = max(1, min(limits.max_pending_images // 2, limits.max_client_pending_images))
    async with deadline(context, limits.default_timeout_s):
        # Large tensors take a while: not on the event loop.
        asked = await asyncio.to_thread(kserve.infer_request, request, most)
        found = await application.infer_batch(
            flow, asked.reference_id, asked.expected_revision, asked.images, asked.options
        )
        return await asyncio.to_thread(kserve.infer_response, request, asked, found)
