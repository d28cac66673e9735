"""patchserve.v1.PatchCoreService on gRPC: the operations of the contract, and the streams of messages."""
# The adapter hands a Call to these methods in place of gRPC's context.
# mypy: disable-error-code="override"

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

from patchserve.v1 import inference_pb2, reference_pb2, server_info_pb2, service_pb2_grpc, stream_pb2
from patchserve_server import contract
from patchserve_server.contract import operations
from patchserve_server.contract.infer_stream import infer_stream
from patchserve_server.contract.transfer import export_reference, import_reference
from patchserve_server.domain.errors import StreamProtocolError
from patchserve_server.domain.reference_image import NamedImage
from patchserve_server.rpc.calls import Call


class PatchCoreServicer(service_pb2_grpc.PatchCoreServiceServicer):
    """Our contract. The adapter has already admitted a call and set its time limit when a method is called."""

    async def LoadReference(
        self, request: reference_pb2.LoadReferenceRequest, call: Call
    ) -> reference_pb2.LoadReferenceResponse:
        return await operations.load_reference(request, call)

    async def LoadReferenceStream(
        self, request_iterator: AsyncIterator[reference_pb2.LoadReferenceStreamRequest], call: Call
    ) -> reference_pb2.LoadReferenceStreamResponse:
        first_message = await anext(aiter(request_iterator), None)
        if first_message is None or first_message.WhichOneof("payload") != "start":
            raise StreamProtocolError("The first message of LoadReferenceStream must be `start`.")
        images = _images(first_message.start, request_iterator)
        loaded = await call.application.load_stream(call.client, contract.load_options(first_message.start), images)
        return reference_pb2.LoadReferenceStreamResponse(
            reference=contract.reference_message(loaded.info), cost=contract.cost_message(loaded.cost)
        )

    async def GetReference(
        self, request: reference_pb2.GetReferenceRequest, call: Call
    ) -> reference_pb2.GetReferenceResponse:
        return await operations.get_reference(request, call)

    async def ListReferences(
        self, request: reference_pb2.ListReferencesRequest, call: Call
    ) -> reference_pb2.ListReferencesResponse:
        return await operations.list_references(request, call)

    async def ListLoads(self, request: reference_pb2.ListLoadsRequest, call: Call) -> reference_pb2.ListLoadsResponse:
        return await operations.list_loads(request, call)

    async def TuneReference(
        self, request: reference_pb2.TuneReferenceRequest, call: Call
    ) -> reference_pb2.TuneReferenceResponse:
        return await operations.tune_reference(request, call)

    async def RestoreReference(
        self, request: reference_pb2.RestoreReferenceRequest, call: Call
    ) -> reference_pb2.RestoreReferenceResponse:
        return await operations.restore_reference(request, call)

    async def GetReferenceHistory(
        self, request: reference_pb2.GetReferenceHistoryRequest, call: Call
    ) -> reference_pb2.GetReferenceHistoryResponse:
        return await operations.get_reference_history(request, call)

    def ExportReference(
        self, request: reference_pb2.ExportReferenceRequest, call: Call
    ) -> AsyncIterator[reference_pb2.ExportReferenceResponse]:
        return export_reference(request, call)

    async def ImportReference(
        self, request_iterator: AsyncIterator[reference_pb2.ImportReferenceRequest], call: Call
    ) -> reference_pb2.ImportReferenceResponse:
        return await import_reference(request_iterator, call)

    async def GetReferenceImage(
        self, request: reference_pb2.GetReferenceImageRequest, call: Call
    ) -> reference_pb2.GetReferenceImageResponse:
        return await operations.get_reference_image(request, call)

    async def DeleteReference(
        self, request: reference_pb2.DeleteReferenceRequest, call: Call
    ) -> reference_pb2.DeleteReferenceResponse:
        return await operations.delete_reference(request, call)

    async def Infer(self, request: inference_pb2.InferRequest, call: Call) -> bytes:
        return await operations.infer_serialized(request, call)

    def InferStream(
        self, request_iterator: AsyncIterator[stream_pb2.InferStreamRequest], call: Call
    ) -> AsyncIterator[bytes]:
        return infer_stream(request_iterator, call)

    async def GetServerInfo(
        self, request: server_info_pb2.GetServerInfoRequest, call: Call
    ) -> server_info_pb2.GetServerInfoResponse:
        return await operations.get_server_info(request, call)

    async def GetServerStats(
        self, request: server_info_pb2.GetServerStatsRequest, call: Call
    ) -> server_info_pb2.GetServerStatsResponse:
        return await operations.get_server_stats(request, call)


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
