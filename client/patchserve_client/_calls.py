"""Every call as a request and the conversion of its response, without I/O to the server. Both clients use it.

Functions that take images block: they read files and encode pixels.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from patchserve.v1 import reference_pb2, server_info_pb2, stream_pb2
from patchserve_client import _requests, _results
from patchserve_client._backoff import Backoff
from patchserve_client._image_files import images_in
from patchserve_client._images import encoded
from patchserve_client._options import InferOptions, LoadOptions, StreamOptions
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

# A load up to this size is one message, held in memory and retried. A larger one is streamed while images are read.
UNARY_LOAD_BYTES = 16 * 1024 * 1024
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


def stream_state(reference_id: str, options: StreamOptions, resume_for_s: float) -> StreamState:
    """The state of a new stream of frames."""
    return StreamState(_requests.stream_config(reference_id, options), Backoff(resume_for_s))


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


@dataclass(frozen=True, slots=True)
class StreamedLoad:
    """A load for LoadReferenceStream. `messages` reads each image only when gRPC asks for its message."""

    messages: Iterator[reference_pb2.LoadReferenceStreamRequest]
    convert: Callable[[Any], ReferenceInfo]


def load(
    images: ImageSource | Iterable[ImageSource], reference_id: str, options: LoadOptions
) -> Call[ReferenceInfo] | StreamedLoad:
    """A unary call if the load is small and safe to repeat, otherwise a stream. Reads at most UNARY_LOAD_BYTES."""
    request = _requests.load_request(reference_id, options)
    bgr = options.get("bgr", False)
    loadable = ((encoded(image, bgr=bgr), _requests.image_name(image)) for image in _images(images))
    first: list[tuple[bytes, str]] = []
    is_append = request.mode == reference_pb2.LOAD_MODE_APPEND
    if not is_append or request.expected_revision:  # safe to repeat
        size_bytes = 0
        for image, name in loadable:
            first.append((image, name))
            size_bytes += len(image)
            if size_bytes > UNARY_LOAD_BYTES:
                break
        else:
            request.images.extend(image for image, _ in first)
            if any(name for _, name in first):
                request.image_names.extend(name for _, name in first)
            return Call("LoadReference", request, _loaded)
    return StreamedLoad(_load_messages(request, itertools.chain(first, loadable)), _loaded)


def _load_messages(
    request: reference_pb2.LoadReferenceRequest, images: Iterable[tuple[bytes, str]]
) -> Iterator[reference_pb2.LoadReferenceStreamRequest]:
    yield reference_pb2.LoadReferenceStreamRequest(start=request)
    for image, name in images:
        yield reference_pb2.LoadReferenceStreamRequest(image=image, image_name=name)


def _loaded(response: Any) -> ReferenceInfo:  # noqa: ANN401 - both loads have such a response
    cost = response.cost if response.HasField("cost") else None  # an older server sends none
    return _results.reference_info(response.reference, cost=cost)


def _images(images: ImageSource | Iterable[ImageSource]) -> Iterator[ImageSource]:
    """A single image becomes one item, and a folder the images in it."""
    # Types are checked because paths, bytes and arrays are iterable too.
    is_path_or_bytes = isinstance(images, (str, bytes, bytearray, memoryview, os.PathLike))
    is_single = is_path_or_bytes or hasattr(type(images), "__array_interface__")  # Pillow images and NumPy arrays
    for image in cast(Iterable[ImageSource], [images] if is_single else images):
        if isinstance(image, (str, os.PathLike)) and Path(image).is_dir():
            yield from images_in(Path(image))
        else:
            yield image
