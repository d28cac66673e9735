"""The unary methods of patchserve.v1.PatchCoreService: each converts, calls the application, converts back.

Every face of the server calls them, after it has admitted the call and set its time limit.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from google.protobuf.message import Message

from patchserve.v1 import inference_pb2, reference_pb2, server_info_pb2
from patchserve_server.contract import requests, responses, serialized
from patchserve_server.contract.calls import AdmittedCall
from patchserve_server.contract.response_size import check_response_size
from patchserve_server.contract.server_stats import server_stats
from patchserve_server.domain.errors import ResponseTooLargeError
from patchserve_server.domain.inspection import Inspection

T = TypeVar("T")

Operation = Callable[[Any, AdmittedCall], Awaitable[Message]]


async def load_reference(
    request: reference_pb2.LoadReferenceRequest, call: AdmittedCall
) -> reference_pb2.LoadReferenceResponse:
    options = requests.load_options(request)
    loaded = await call.application.load(call.permit, options, requests.named_images(request))
    return reference_pb2.LoadReferenceResponse(
        reference=responses.reference_message(loaded.info), cost=responses.cost_message(loaded.cost)
    )


async def get_reference(
    request: reference_pb2.GetReferenceRequest, call: AdmittedCall
) -> reference_pb2.GetReferenceResponse:
    info = await call.application.catalog.info(requests.reference_id(request.reference_id))
    reference = responses.reference_with_drift(info, call.application.drift.drift_of(info))
    return reference_pb2.GetReferenceResponse(reference=reference, images=map(responses.image_message, info.images))


async def list_references(
    request: reference_pb2.ListReferencesRequest, call: AdmittedCall
) -> reference_pb2.ListReferencesResponse:
    after_id, size = requests.page(request)
    drift = call.application.drift
    references, has_more = await call.application.catalog.page(after_id, size)
    return reference_pb2.ListReferencesResponse(
        references=[responses.reference_with_drift(each, drift.drift_of(each)) for each in references],
        next_page_token=responses.page_token(references[-1].reference_id) if has_more else "",
    )


async def list_loads(request: reference_pb2.ListLoadsRequest, call: AdmittedCall) -> reference_pb2.ListLoadsResponse:
    loads = await call.application.builder.list_loads(requests.loads_of(request))
    return reference_pb2.ListLoadsResponse(loads=map(responses.load_message, loads))


async def tune_reference(
    request: reference_pb2.TuneReferenceRequest, call: AdmittedCall
) -> reference_pb2.TuneReferenceResponse:
    reference_id = requests.reference_id(request.reference_id)
    expected = requests.expected_revision(request.expected_revision)
    reference = await call.application.catalog.tune(reference_id, request.sensitivity, expected)
    return reference_pb2.TuneReferenceResponse(reference=responses.reference_message(reference))


async def restore_reference(
    request: reference_pb2.RestoreReferenceRequest, call: AdmittedCall
) -> reference_pb2.RestoreReferenceResponse:
    reference_id = requests.reference_id(request.reference_id)
    revision = requests.expected_revision(request.revision, "revision")
    expected = requests.expected_revision(request.expected_revision)
    reference = await call.application.catalog.restore(reference_id, revision, expected)
    return reference_pb2.RestoreReferenceResponse(reference=responses.reference_message(reference))


async def get_reference_history(
    request: reference_pb2.GetReferenceHistoryRequest, call: AdmittedCall
) -> reference_pb2.GetReferenceHistoryResponse:
    current, *previous = await call.application.catalog.history(requests.reference_id(request.reference_id))
    return reference_pb2.GetReferenceHistoryResponse(
        revisions=[
            responses.kept_revision_message(current, is_current=True),
            *(responses.kept_revision_message(each, is_current=False) for each in previous),
        ]
    )


async def get_reference_image(
    request: reference_pb2.GetReferenceImageRequest, call: AdmittedCall
) -> reference_pb2.GetReferenceImageResponse:
    reference_id = requests.reference_id(request.reference_id)
    expected = requests.expected_revision(request.expected_revision)
    image = await call.application.reference_images.read(call.permit, reference_id, request.index, expected)
    return responses.reference_image_response(image)


async def delete_reference(
    request: reference_pb2.DeleteReferenceRequest, call: AdmittedCall
) -> reference_pb2.DeleteReferenceResponse:
    reference_id = requests.reference_id(request.reference_id)
    expected = requests.expected_revision(request.expected_revision)
    revision = await call.application.catalog.delete(reference_id, expected)
    return reference_pb2.DeleteReferenceResponse(revision=revision)


async def infer(request: inference_pb2.InferRequest, call: AdmittedCall) -> inference_pb2.InferResponse:
    return await infer_as(request, call, lambda response: response)


async def infer_as(
    request: inference_pb2.InferRequest, call: AdmittedCall, write: Callable[[inference_pb2.InferResponse], T]
) -> T:
    """What `write` makes of the response of `infer`, off the event loop."""
    limit_bytes = call.application.limits.max_message_bytes

    def answer(inspection: Inspection) -> T:
        response = responses.infer_response(inspection)
        check_response_size(response, limit_bytes)
        return write(response)

    return await _infer(request, call, answer)


async def infer_serialized(request: inference_pb2.InferRequest, call: AdmittedCall) -> bytes:
    """The response of `infer` as bytes."""
    limit_bytes = call.application.limits.max_message_bytes

    def answer(inspection: Inspection) -> bytes:
        response = serialized.infer_response(inspection)
        check_response_size(response, limit_bytes)
        return response

    return await _infer(request, call, answer)


async def _infer(request: inference_pb2.InferRequest, call: AdmittedCall, answer: Callable[[Inspection], T]) -> T:
    def answer_or_error(inspection: Inspection) -> T | ResponseTooLargeError:
        try:
            return answer(inspection)
        except ResponseTooLargeError as error:
            return error.copy()  # raised below: the inspection itself has not failed

    answered = await call.application.infer(
        call.permit,
        requests.reference_id(request.reference_id),
        requests.expected_revision(request.expected_revision),
        requests.sent_image(request),
        requests.output_options(request.output),
        answer=answer_or_error,
        name=requests.image_name(request.image_name),
    )
    if not isinstance(answered, ResponseTooLargeError):
        return answered
    try:
        raise answered
    finally:
        del answered  # its traceback refers to this frame: a cycle


async def get_server_info(
    _: server_info_pb2.GetServerInfoRequest, call: AdmittedCall
) -> server_info_pb2.GetServerInfoResponse:
    return responses.server_info(call.application, await call.application.catalog.store_status())


async def get_server_stats(
    _: server_info_pb2.GetServerStatsRequest, call: AdmittedCall
) -> server_info_pb2.GetServerStatsResponse:
    return server_stats(call.application, await call.application.statistics.counts())


OPERATIONS: Final[dict[str, Operation]] = {
    "LoadReference": load_reference,
    "GetReference": get_reference,
    "ListReferences": list_references,
    "ListLoads": list_loads,
    "TuneReference": tune_reference,
    "RestoreReference": restore_reference,
    "GetReferenceHistory": get_reference_history,
    "GetReferenceImage": get_reference_image,
    "DeleteReference": delete_reference,
    "Infer": infer,
    "GetServerInfo": get_server_info,
    "GetServerStats": get_server_stats,
}
"""All unary methods of PatchCoreService, by name."""
