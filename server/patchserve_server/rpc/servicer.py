"""The service: each method converts, calls the application, converts back."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from grpc import aio

from patchserve.v1 import inference_pb2, reference_pb2, server_info_pb2, service_pb2_grpc, stream_pb2
from patchserve_server.domain.errors import DeadlineError, NotReadyError, StreamProtocolError
from patchserve_server.domain.stream import Frame
from patchserve_server.rpc import convert
from patchserve_server.rpc.admission import client_of
from patchserve_server.rpc.deadlines import deadline, within
from patchserve_server.rpc.interceptors import REQUEST_ID
from patchserve_server.serving.application import Application

RETRY_AFTER_START_S = 1.0

Context = aio.ServicerContext[Any, Any]


class PatchCoreServicer(service_pb2_grpc.PatchCoreServiceServicer):
    """patchserve.v1.PatchCoreService. Until `ready` is called every method answers UNAVAILABLE."""

    def __init__(self, version: str) -> None:
        self._version = version
        self._ready: Application | None = None

    def ready(self, application: Application) -> None:
        self._ready = application

    @property
    def is_ready(self) -> bool:
        return self._ready is not None

    @property
    def application(self) -> Application:
        if self._ready is None:
            message = "The server is starting: it loads its backbone and its references. Try again shortly."
            raise NotReadyError(message, RETRY_AFTER_START_S)
        return self._ready

    async def LoadReference(
        self, request: reference_pb2.LoadReferenceRequest, context: Context
    ) -> reference_pb2.LoadReferenceResponse:
        application = self.application
        async with deadline(context, application.limits.load_timeout_s):
            options = convert.load_options(request)
            reference = await application.load(client_of(context), options, request.images)
        return reference_pb2.LoadReferenceResponse(reference=convert.reference_message(reference))

    async def LoadReferenceStream(
        self, request_iterator: AsyncIterator[reference_pb2.LoadReferenceStreamRequest], context: Context
    ) -> reference_pb2.LoadReferenceStreamResponse:
        application = self.application
        async with deadline(context, application.limits.load_timeout_s):
            start = await anext(aiter(request_iterator), None)
            if start is None or start.WhichOneof("payload") != "start":
                raise StreamProtocolError("The first message of LoadReferenceStream is `start`.")
            images = _images(start.start, request_iterator)
            reference = await application.load_stream(client_of(context), convert.load_options(start.start), images)
        return reference_pb2.LoadReferenceStreamResponse(reference=convert.reference_message(reference))

    async def GetReference(
        self, request: reference_pb2.GetReferenceRequest, context: Context
    ) -> reference_pb2.GetReferenceResponse:
        info = self.application.catalog.info(convert.reference_id(request.reference_id))
        return reference_pb2.GetReferenceResponse(reference=convert.reference_message(info))

    async def ListReferences(
        self, request: reference_pb2.ListReferencesRequest, context: Context
    ) -> reference_pb2.ListReferencesResponse:
        after_id, size = convert.page(request)
        references, more = self.application.catalog.page(after_id, size)
        return reference_pb2.ListReferencesResponse(
            references=[convert.reference_message(reference) for reference in references],
            next_page_token=convert.page_token(references[-1].reference_id) if more else "",
        )

    async def ListLoads(
        self, request: reference_pb2.ListLoadsRequest, context: Context
    ) -> reference_pb2.ListLoadsResponse:
        loads = self.application.loader.active_loads(convert.loads_of(request))
        return reference_pb2.ListLoadsResponse(loads=map(convert.load_message, loads))

    async def DeleteReference(
        self, request: reference_pb2.DeleteReferenceRequest, context: Context
    ) -> reference_pb2.DeleteReferenceResponse:
        application = self.application
        async with deadline(context, application.limits.default_timeout_s):
            reference_id = convert.reference_id(request.reference_id)
            expected = convert.expected_revision(request.expected_revision)
            revision = await application.catalog.delete(reference_id, expected)
        return reference_pb2.DeleteReferenceResponse(revision=revision)

    async def Infer(self, request: inference_pb2.InferRequest, context: Context) -> inference_pb2.InferResponse:
        application = self.application
        async with deadline(context, application.limits.default_timeout_s):
            inspection = await application.infer(
                client_of(context),
                convert.reference_id(request.reference_id),
                convert.expected_revision(request.expected_revision),
                request.image,
                convert.output_options(request.output),
            )
        return convert.infer_response(inspection)

    async def InferStream(
        self, request_iterator: AsyncIterator[stream_pb2.InferStreamRequest], context: Context
    ) -> AsyncIterator[stream_pb2.InferStreamResponse]:
        application = self.application
        limit_s = application.limits.default_timeout_s
        late = DeadlineError(f"No `config` came within {limit_s:g} s; it is the first message of InferStream.")
        async with within(limit_s, late):
            first = await anext(aiter(request_iterator), None)
        if first is None or first.WhichOneof("payload") != "config":
            raise StreamProtocolError("The first message of InferStream is `config`.")
        config = convert.stream_config(first.config, application.limits)
        running = application.sessions.run(client_of(context), config, _frames(request_iterator))
        async with aclosing(running) as events:
            async for event in events:
                yield convert.stream_event(event, REQUEST_ID.get())

    async def GetServerInfo(
        self, request: server_info_pb2.GetServerInfoRequest, context: Context
    ) -> server_info_pb2.GetServerInfoResponse:
        return convert.server_info(self.application, self._version)


async def _images(
    start: reference_pb2.LoadReferenceRequest,
    requests: AsyncIterator[reference_pb2.LoadReferenceStreamRequest],
) -> AsyncGenerator[bytes]:
    for image in start.images:
        yield image
    async for request in requests:
        if request.WhichOneof("payload") != "image":
            raise StreamProtocolError("Every message after the first of LoadReferenceStream is an `image`.")
        yield request.image


async def _frames(requests: AsyncIterator[stream_pb2.InferStreamRequest]) -> AsyncIterator[Frame]:
    async for request in requests:
        if request.WhichOneof("payload") != "frame":
            raise StreamProtocolError("Every message after the first of InferStream is a `frame`.")
        yield convert.frame(request.frame)
