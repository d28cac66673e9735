"""Every call as a request and the conversion of its response, without I/O to the server. Both clients use it.

Functions that take images block: they read files and encode pixels. _loads.py has the loads.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from patchserve.v1 import reference_pb2, server_info_pb2, stream_pb2
from patchserve_client import _requests, _results
from patchserve_client._backoff import Backoff
from patchserve_client._options import InferOptions, StreamOptions
from patchserve_client._own_changes import OwnChanges
from patchserve_client._server_types import ServerInfo, ServerStats
from patchserve_client._stream_state import StreamState
from patchserve_client._types import (
    EncodedReferenceImage,
    Frame,
    ImageSource,
    InferenceResult,
    KeptRevision,
    LoadProgress,
    ReferenceInfo,
)

_T = TypeVar("_T")

READINESS_SERVICE = "patchserve.v1.PatchCoreService"


@dataclass(frozen=True, slots=True)
class Call(Generic[_T]):
    """One unary call: the stub's method, the request, and the conversion of the response."""

    method: str
    request: Message
    convert: Callable[[Any], _T]


def infer(image: ImageSource, reference_id: str, options: InferOptions) -> Call[InferenceResult]:
    return Call("Infer", _requests.infer_request(image, reference_id, options), _results.inference_result)


def frame_requests(options: StreamOptions) -> Callable[[Frame | ImageSource], stream_pb2.InferStreamRequest]:
    """The function that makes the request of a frame. It blocks."""
    return functools.partial(_requests.frame_request, bgr=options.get("bgr", False))


def stream_state(reference_id: str, options: StreamOptions, resume_for_s: float, own: OwnChanges) -> StreamState:
    """The state of a new stream of frames. It begins with the revision that this client has made a moment ago."""
    return StreamState(_requests.stream_config(reference_id, options), Backoff(resume_for_s), own)


def get_reference(reference_id: str) -> Call[ReferenceInfo]:
    request = reference_pb2.GetReferenceRequest(reference_id=reference_id)
    return Call("GetReference", request, lambda response: _results.reference_info(response.reference, response.images))


def list_references(page_token: str) -> Call[tuple[list[ReferenceInfo], str]]:
    """One page, and the token of the next page; empty after the last one."""
    request = reference_pb2.ListReferencesRequest(page_token=page_token)
    return Call(
        "ListReferences",
        request,
        lambda response: ([_results.reference_info(item) for item in response.references], response.next_page_token),
    )


def list_loads(reference_id: str) -> Call[list[LoadProgress]]:
    request = reference_pb2.ListLoadsRequest(reference_id=reference_id)
    return Call("ListLoads", request, lambda response: [_results.load_progress(load) for load in response.loads])


def tune_reference(reference_id: str, sensitivity: float, expected_revision: str) -> Call[ReferenceInfo]:
    request = reference_pb2.TuneReferenceRequest(
        reference_id=reference_id, sensitivity=sensitivity, expected_revision=expected_revision
    )
    return Call("TuneReference", request, lambda response: _results.reference_info(response.reference))


def restore_reference(reference_id: str, revision: str, expected_revision: str) -> Call[ReferenceInfo]:
    request = reference_pb2.RestoreReferenceRequest(
        reference_id=reference_id, revision=revision, expected_revision=expected_revision
    )
    return Call("RestoreReference", request, lambda response: _results.reference_info(response.reference))


def reference_history(reference_id: str) -> Call[list[KeptRevision]]:
    request = reference_pb2.GetReferenceHistoryRequest(reference_id=reference_id)
    return Call("GetReferenceHistory", request, _results.kept_revisions)


def reference_image(reference_id: str, index: int, expected_revision: str) -> Call[EncodedReferenceImage]:
    request = reference_pb2.GetReferenceImageRequest(
        reference_id=reference_id, index=index, expected_revision=expected_revision
    )
    return Call("GetReferenceImage", request, _results.reference_image)


def delete_reference(reference_id: str, expected_revision: str) -> Call[str]:
    request = reference_pb2.DeleteReferenceRequest(reference_id=reference_id, expected_revision=expected_revision)
    return Call("DeleteReference", request, lambda response: str(response.revision))


def server_info() -> Call[ServerInfo]:
    return Call("GetServerInfo", server_info_pb2.GetServerInfoRequest(), _results.server_info)


def server_stats() -> Call[ServerStats]:
    return Call("GetServerStats", server_info_pb2.GetServerStatsRequest(), _results.server_stats)


def health(service: str) -> Call[bool]:
    request = health_pb2.HealthCheckRequest(service=service)
    return Call("Check", request, lambda response: bool(response.status == health_pb2.HealthCheckResponse.SERVING))
