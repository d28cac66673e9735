"""The methods ExportReference and ImportReference: references as single files, in the messages of a stream."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

from patchserve.v1 import reference_pb2
from patchserve_server.contract import requests, responses
from patchserve_server.contract.calls import AdmittedCall
from patchserve_server.domain.errors import StreamProtocolError


async def export_reference(
    request: reference_pb2.ExportReferenceRequest, call: AdmittedCall
) -> AsyncIterator[reference_pb2.ExportReferenceResponse]:
    """The reference and the size of its file, then its bytes. Close it to release them."""
    reference_id = requests.reference_id(request.reference_id)
    expected = requests.expected_revision(request.expected_revision)
    async with call.application.transfer.export(reference_id, expected) as export:
        start = reference_pb2.ReferenceFile(
            reference=responses.reference_message(export.info), size_bytes=export.size_bytes
        )
        yield reference_pb2.ExportReferenceResponse(start=start)
        async for chunk in export.chunks:
            yield reference_pb2.ExportReferenceResponse(chunk=chunk)


async def import_reference(
    messages: AsyncIterator[reference_pb2.ImportReferenceRequest], call: AdmittedCall
) -> reference_pb2.ImportReferenceResponse:
    """Imports the file of these messages.

    Raises:
        StreamProtocolError: a message is not the one that comes at this place.
        The errors of Application.import_reference.
    """
    first = await anext(aiter(messages), None)
    if first is None or first.WhichOneof("payload") != "start":
        raise StreamProtocolError("The first message of ImportReference must be `start`.")
    options = requests.import_options(first.start)
    info = await call.application.import_reference(call.client, options, _chunks(messages))
    return reference_pb2.ImportReferenceResponse(reference=responses.reference_message(info))


async def _chunks(messages: AsyncIterator[reference_pb2.ImportReferenceRequest]) -> AsyncGenerator[bytes]:
    async for message in messages:
        if message.WhichOneof("payload") != "chunk":
            raise StreamProtocolError("Every message after the first of ImportReference must be a `chunk`.")
        yield message.chunk
