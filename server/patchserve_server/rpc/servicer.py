"""patchserve.v1.PatchCoreService: each method converts, calls the application, converts back."""
# The adapter hands a Call to these methods in place of gRPC's context.
# mypy: disable-error-code="override"

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Self

from patchserve.v1 import inference_pb2, reference_pb2, server_info_pb2, service_pb2_grpc, stream_pb2
from patchserve_server import contract
from patchserve_server.domain.errors import ResponseTooLargeError, StreamProtocolError
from patchserve_server.domain.reference_image import NamedImage
from patchserve_server.domain.stream import Frame, FrameOutcome, StreamEvent
from patchserve_server.rpc.calls import Call
from patchserve_server.rpc.response_size import check_response_size


class PatchCoreServicer(service_pb2_grpc.PatchCoreServiceServicer):
    """Our contract. The adapter has already admitted a call and set its time limit when a method is called."""

    def __init__(self, version: str) -> None:
        self._version = version

    async def LoadReference(
        self, request: reference_pb2.LoadReferenceRequest, call: Call
    ) -> reference_pb2.LoadReferenceResponse:
        options = contract.load_options(request)
        reference = await call.application.load(call.permit, options, contract.named_images(request))
        return reference_pb2.LoadReferenceResponse(reference=contract.reference_message(reference))

    async def LoadReferenceStream(
        self, request_iterator: AsyncIterator[reference_pb2.LoadReferenceStreamRequest], call: Call
    ) -> reference_pb2.LoadReferenceStreamResponse:
        first_message = await anext(aiter(request_iterator), None)
        if first_message is None or first_message.WhichOneof("payload") != "start":
            raise StreamProtocolError("The first message of LoadReferenceStream must be `start`.")
        images = _images(first_message.start, request_iterator)
        reference = await call.application.load_stream(call.client, contract.load_options(first_message.start), images)
        return reference_pb2.LoadReferenceStreamResponse(reference=contract.reference_message(reference))

    async def GetReference(
        self, request: reference_pb2.GetReferenceRequest, call: Call
    ) -> reference_pb2.GetReferenceResponse:
        info = call.application.catalog.info(contract.reference_id(request.reference_id))
        images = map(contract.image_message, info.images)
        return reference_pb2.GetReferenceResponse(reference=contract.reference_message(info), images=images)

    async def ListReferences(
        self, request: reference_pb2.ListReferencesRequest, call: Call
    ) -> reference_pb2.ListReferencesResponse:
        after_id, size = contract.page(request)
        references, has_more = call.application.catalog.page(after_id, size)
        return reference_pb2.ListReferencesResponse(
            references=[contract.reference_message(reference) for reference in references],
            next_page_token=contract.page_token(references[-1].reference_id) if has_more else "",
        )

    async def ListLoads(self, request: reference_pb2.ListLoadsRequest, call: Call) -> reference_pb2.ListLoadsResponse:
        loads = call.application.builder.active_loads(contract.loads_of(request))
        return reference_pb2.ListLoadsResponse(loads=map(contract.load_message, loads))

    async def TuneReference(
        self, request: reference_pb2.TuneReferenceRequest, call: Call
    ) -> reference_pb2.TuneReferenceResponse:
        reference_id = contract.reference_id(request.reference_id)
        expected = contract.expected_revision(request.expected_revision)
        reference = await call.application.catalog.tune(reference_id, request.sensitivity, expected)
        return reference_pb2.TuneReferenceResponse(reference=contract.reference_message(reference))

    async def DeleteReference(
        self, request: reference_pb2.DeleteReferenceRequest, call: Call
    ) -> reference_pb2.DeleteReferenceResponse:
        reference_id = contract.reference_id(request.reference_id)
        expected = contract.expected_revision(request.expected_revision)
        revision = await call.application.catalog.delete(reference_id, expected)
        return reference_pb2.DeleteReferenceResponse(revision=revision)

    async def Infer(self, request: inference_pb2.InferRequest, call: Call) -> inference_pb2.InferResponse:
        inspection = await call.application.infer(
            call.permit,
            contract.reference_id(request.reference_id),
            contract.expected_revision(request.expected_revision),
            request.image,
            contract.output_options(request.output),
            name=contract.image_name(request.image_name),
        )
        response = contract.infer_response(inspection)
        check_response_size(response, call.application.limits.max_message_bytes)
        return response

    async def InferStream(
        self, request_iterator: AsyncIterator[stream_pb2.InferStreamRequest], call: Call
    ) -> AsyncIterator[stream_pb2.InferStreamResponse]:
        first_message = await anext(aiter(request_iterator), None)
        if first_message is None or first_message.WhichOneof("payload") != "config":
            raise StreamProtocolError("The first message of InferStream must be `config`.")
        config = contract.stream_config(first_message.config, call.application.limits)
        stream = call.application.streams.run(call.client, config, _Frames(request_iterator))
        async with aclosing(stream) as events:
            async for event in events:
                yield _stream_response(event, call)

    async def GetServerInfo(
        self, request: server_info_pb2.GetServerInfoRequest, call: Call
    ) -> server_info_pb2.GetServerInfoResponse:
        return contract.server_info(call.application, self._version)


def _stream_response(event: StreamEvent, call: Call) -> stream_pb2.InferStreamResponse:
    """The message of an event. A result that is too large becomes an error of its frame; the stream continues."""
    if isinstance(event, FrameOutcome) and isinstance(event.result, ResponseTooLargeError):
        event = replace(event, result=event.result.with_prefix("config"))
    response = contract.stream_event(event, call.request_id)
    if isinstance(event, FrameOutcome):
        try:
            check_response_size(response, call.application.limits.max_message_bytes, "config.output")
        except ResponseTooLargeError as error:
            return contract.stream_event(replace(event, result=error), call.request_id)
    return response


async def _images(
    start: reference_pb2.LoadReferenceRequest,
    requests: AsyncIterator[reference_pb2.LoadReferenceStreamRequest],
) -> AsyncGenerator[NamedImage]:
    for image in contract.named_images(start):
        yield image
    async for request in requests:
        if request.WhichOneof("payload") != "image":
            raise StreamProtocolError("Every message after the first of LoadReferenceStream must be an `image`.")
        yield NamedImage(request.image, request.image_name)


class _Frames:
    """The frames of a stream. Not a generator: it would keep each frame until the next one comes."""

    def __init__(self, requests: AsyncIterator[stream_pb2.InferStreamRequest]) -> None:
        self._requests = requests

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Frame:
        request = await anext(self._requests)
        if request.WhichOneof("payload") != "frame":
            raise StreamProtocolError("Every message after the first of InferStream must be a `frame`.")
        return contract.frame(request.frame)
