"""The unary methods of inference.GRPCInferenceService that need the application, for every face of the server."""

from __future__ import annotations

import asyncio

from patchserve.kserve import open_inference_pb2 as pb
from patchserve_server.contract import kserve
from patchserve_server.contract.calls import AdmittedCall
from patchserve_server.contract.response_size import check_response_size, check_size
from patchserve_server.domain.errors import (
    QueueFullError,
    ReferenceDamagedError,
    ReferenceNotFoundError,
    RevisionMismatchError,
    UnavailableError,
)
from patchserve_server.serving.admission import Permit
from patchserve_server.serving.application import Application, ServerLimits
from patchserve_server.serving.readiness import Readiness


async def model_ready(request: pb.ModelReadyRequest, readiness: Readiness) -> pb.ModelReadyResponse:
    reference_id, revision = kserve.model(request.name, request.version)
    try:
        await readiness.application.catalog.info(reference_id, revision)
    except (
        UnavailableError, QueueFullError, ReferenceNotFoundError, ReferenceDamagedError, RevisionMismatchError,
    ):  # fmt: skip
        return pb.ModelReadyResponse(ready=False)
    return pb.ModelReadyResponse(ready=True)


async def server_metadata(_: pb.ServerMetadataRequest, call: AdmittedCall) -> pb.ServerMetadataResponse:
    return pb.ServerMetadataResponse(name="patchserve", version=call.application.version)


async def model_metadata(request: pb.ModelMetadataRequest, call: AdmittedCall) -> pb.ModelMetadataResponse:
    info = await call.application.catalog.info(*kserve.model(request.name, request.version))
    return kserve.metadata(info)


async def model_config(request: pb.ModelConfigRequest, call: AdmittedCall) -> pb.ModelConfigResponse:
    info = await call.application.catalog.info(*kserve.model(request.name, request.version))
    return kserve.config(info)


async def model_infer(request: pb.ModelInferRequest, call: AdmittedCall) -> pb.ModelInferResponse:
    return await infer_batch(call.application, call.permit, request, await batch_of(request, call.application.limits))


async def batch_of(request: pb.ModelInferRequest, limits: ServerLimits) -> kserve.Batch:
    """The checked images and options of a request.

    Raises:
        InvalidInputError: the request is invalid, or has too many images.
    """
    max_images = max(1, min(limits.max_pending_images // 2, limits.max_client_pending_images))
    # Not on the event loop: large tensors take a while.
    return await asyncio.to_thread(kserve.infer_request, request, max_images)


async def infer_batch(
    application: Application, permit: Permit, request: pb.ModelInferRequest, batch: kserve.Batch
) -> pb.ModelInferResponse:
    """Inspects the images of a request, with the permit of the call or of one message of a stream.

    Raises:
        ResponseTooLargeError, and the errors of Application.infer_batch.
    """
    inspections = await application.infer_batch(
        permit, batch.reference_id, batch.expected_revision, batch.images, batch.options, name=request.id
    )
    maps_bytes = sum(one.score_map.nbytes for one in inspections if one.score_map is not None)
    check_size(maps_bytes, application.limits.max_message_bytes, "outputs")  # before they are copied, perhaps as text
    response = await asyncio.to_thread(kserve.infer_response, request, batch, inspections)
    check_response_size(response, application.limits.max_message_bytes, "outputs")
    return response
