"""inference.GRPCInferenceService on gRPC: the operations of the contract, probes, and the stream of requests."""
# The adapter hands a Call to methods that need the application, in place of gRPC's context.
# mypy: disable-error-code="override"

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import ExitStack, aclosing

from patchserve.kserve import open_inference_pb2 as pb
from patchserve.kserve import open_inference_pb2_grpc
from patchserve_server.contract import kserve, kserve_operations
from patchserve_server.domain.errors import DrainingError, EngineLostError
from patchserve_server.rpc.calls import Call, Context
from patchserve_server.serving.application import capacity_of
from patchserve_server.serving.fairness import FlowKey
from patchserve_server.serving.readiness import Readiness
from patchserve_server.serving.time_limits import deadline


class KServeServicer(open_inference_pb2_grpc.GRPCInferenceServiceServicer):
    """The Open Inference Protocol, with the same application as our contract."""

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness

    async def ServerLive(self, request: pb.ServerLiveRequest, context: Context) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: pb.ServerReadyRequest, context: Context) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=self._readiness.is_serving)

    async def ModelReady(self, request: pb.ModelReadyRequest, context: Context) -> pb.ModelReadyResponse:
        return await kserve_operations.model_ready(request, self._readiness)

    async def ServerMetadata(self, request: pb.ServerMetadataRequest, call: Call) -> pb.ServerMetadataResponse:
        return await kserve_operations.server_metadata(request, call)

    async def ModelMetadata(self, request: pb.ModelMetadataRequest, call: Call) -> pb.ModelMetadataResponse:
        return await kserve_operations.model_metadata(request, call)

    async def ModelConfig(self, request: pb.ModelConfigRequest, call: Call) -> pb.ModelConfigResponse:
        return await kserve_operations.model_config(request, call)

    async def ModelInfer(self, request: pb.ModelInferRequest, call: Call) -> pb.ModelInferResponse:
        return await kserve_operations.model_infer(request, call)

    async def ModelStreamInfer(
        self, request_iterator: AsyncIterator[pb.ModelInferRequest], call: Call
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        application, limits, flow = call.application, call.application.limits, FlowKey.of_stream(call.client)
        async with aclosing(self._until_drain(request_iterator)) as requests:
            async for request in requests:
                with ExitStack() as until_sent:
                    try:
                        limits = application.limits
                        remaining_s = call.context.time_remaining()
                        async with deadline(remaining_s, limits.default_timeout_s, limits.max_timeout_s):
                            batch = await kserve_operations.batch_of(request, limits)
                            permit = await application.images.acquire_for_stream(flow, capacity_of(batch.images))
                            until_sent.enter_context(permit)
                            result = await kserve_operations.infer_batch(application, permit, request, batch)
                        response = pb.ModelStreamInferResponse(infer_response=result)
                    except EngineLostError:  # the stream ends: the caller connects again, to the engine that is back
                        raise
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
