"""inference.GRPCInferenceService: each method converts, calls the application, converts back."""
# The adapter hands a Call to methods that need the application, in place of gRPC's context.
# mypy: disable-error-code="override"

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import ExitStack, aclosing

from patchserve.kserve import open_inference_pb2 as pb
from patchserve.kserve import open_inference_pb2_grpc
from patchserve_server.contract import kserve
from patchserve_server.domain.errors import (
    DrainingError,
    NotReadyError,
    ReferenceDamagedError,
    ReferenceNotFoundError,
    RevisionMismatchError,
)
from patchserve_server.rpc.calls import Call, Context
from patchserve_server.rpc.deadlines import deadline
from patchserve_server.rpc.response_size import check_response_size
from patchserve_server.serving.admission import Permit
from patchserve_server.serving.application import Application, ServerLimits, capacity_of
from patchserve_server.serving.fairness import FlowKey
from patchserve_server.serving.readiness import Readiness


class KServeServicer(open_inference_pb2_grpc.GRPCInferenceServiceServicer):
    """The Open Inference Protocol, with the same application as our contract."""

    def __init__(self, readiness: Readiness, version: str) -> None:
        self._readiness = readiness
        self._version = version

    async def ServerLive(self, request: pb.ServerLiveRequest, context: Context) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: pb.ServerReadyRequest, context: Context) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=self._readiness.is_serving)

    async def ModelReady(self, request: pb.ModelReadyRequest, context: Context) -> pb.ModelReadyResponse:
        reference_id, revision = kserve.model(request.name, request.version)
        try:
            self._readiness.application.catalog.info(reference_id, revision)
        except (NotReadyError, ReferenceNotFoundError, ReferenceDamagedError, RevisionMismatchError):
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=True)

    async def ServerMetadata(self, request: pb.ServerMetadataRequest, call: Call) -> pb.ServerMetadataResponse:
        return pb.ServerMetadataResponse(name="patchserve", version=self._version)

    async def ModelMetadata(self, request: pb.ModelMetadataRequest, call: Call) -> pb.ModelMetadataResponse:
        info = call.application.catalog.info(*kserve.model(request.name, request.version))
        return kserve.metadata(info, call.application.detector.input_size_px)

    async def ModelConfig(self, request: pb.ModelConfigRequest, call: Call) -> pb.ModelConfigResponse:
        info = call.application.catalog.info(*kserve.model(request.name, request.version))
        return kserve.config(info, call.application.detector.input_size_px)

    async def ModelInfer(self, request: pb.ModelInferRequest, call: Call) -> pb.ModelInferResponse:
        batch = await _batch(request, call.application.limits)
        return await _infer(call.application, call.permit, request, batch)

    async def ModelStreamInfer(
        self, request_iterator: AsyncIterator[pb.ModelInferRequest], call: Call
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        application, limits, flow = call.application, call.application.limits, FlowKey.of_stream(call.client)
        async with aclosing(self._until_drain(request_iterator)) as requests:
            async for request in requests:
                with ExitStack() as until_sent:
                    try:
                        async with deadline(
                            call.context, application.limits.default_timeout_s, application.limits.max_timeout_s
                        ):
                            batch = await _batch(request, limits)
                            permit = await application.images.acquire_for_stream(flow, capacity_of(batch.images))
                            until_sent.enter_context(permit)
                            result = await _infer(application, permit, request, batch)
                        response = pb.ModelStreamInferResponse(infer_response=result)
                    except Exception as error:  # noqa: BLE001 - the caller gets it
                        response = kserve.stream_error(request, error, call.request_id)
                    yield response  # the permit is held until this is sent: a caller may read slowly

    async def _until_drain(self, requests: AsyncIterator[pb.ModelInferRequest]) -> AsyncGenerator[pb.ModelInferRequest]:
        """The caller's requests.

        Raises:
            DrainingError: the server is shutting down.
        """
        draining = asyncio.create_task(self._readiness.streams_end())
        coming: asyncio.Future[pb.ModelInferRequest | None] | None = None
        try:
            while True:
                coming = asyncio.ensure_future(_next(requests))
                await asyncio.wait({coming, draining}, return_when=asyncio.FIRST_COMPLETED)
                if not coming.done():
                    raise DrainingError
                if (request := coming.result()) is None:
                    return
                yield request
        finally:
            draining.cancel()
            if coming is not None:
                coming.cancel()
            del coming  # an error of it refers to this frame: a cycle


async def _next(requests: AsyncIterator[pb.ModelInferRequest]) -> pb.ModelInferRequest | None:
    return await anext(aiter(requests), None)


async def _batch(request: pb.ModelInferRequest, limits: ServerLimits) -> kserve.Batch:
    max_images = max(1, min(limits.max_pending_images // 2, limits.max_client_pending_images))
    # Not on the event loop: large tensors take a while.
    return await asyncio.to_thread(kserve.infer_request, request, max_images)


async def _infer(
    application: Application, permit: Permit, request: pb.ModelInferRequest, batch: kserve.Batch
) -> pb.ModelInferResponse:
    inspections = await application.infer_batch(
        permit, batch.reference_id, batch.expected_revision, batch.images, batch.options, name=request.id
    )
    response = await asyncio.to_thread(kserve.infer_response, request, batch, inspections)
    check_response_size(response, application.limits.max_message_bytes, "outputs")
    return response
