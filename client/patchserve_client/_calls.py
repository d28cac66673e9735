"""What a client says and how it takes the answer, without saying how it is sent: shared by both clients.

Everything here may read files and encode images, hence block.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from patchserve.v1 import inference_pb2, reference_pb2, server_info_pb2
from patchserve_client import _convert
from patchserve_client._images import encoded
from patchserve_client._types import (
    HeatmapScale,
    ImageSource,
    InferenceResult,
    LoadMode,
    LoadProgress,
    OverlayFormat,
    Polygon,
    ReferenceInfo,
    ScoringProfile,
    ServerInfo,
)

_T = TypeVar("_T")

# A load up to this size is one message, held in memory and retried; a larger one is streamed as it is read.
UNARY_LOAD_BYTES = 16 * 1024 * 1024
READINESS_SERVICE = "patchserve.v1.PatchCoreService"


@dataclass(frozen=True, slots=True)
class Call(Generic[_T]):
    """One unary call: the stub's method, what is sent, and what its answer becomes."""

    method: str
    request: Message
    convert: Callable[[Any], _T]


def infer(
    image: ImageSource,
    *,
    reference_id: str,
    overlay: bool,
    heatmap_scale: HeatmapScale | str | None,
    score_map: bool,
    max_regions: int | None,
    sensitivity: float | None,
    overlay_format: OverlayFormat | str,
    overlay_max_side_px: int | None,
    expected_revision: str,
) -> Call[InferenceResult]:
    output = _convert.output_options(
        overlay=overlay,
        heatmap_scale=heatmap_scale,
        score_map=score_map,
        max_regions=max_regions,
        sensitivity=sensitivity,
        overlay_format=overlay_format,
        overlay_max_side_px=overlay_max_side_px,
    )
    request = inference_pb2.InferRequest(
        reference_id=reference_id, image=encoded(image), output=output, expected_revision=expected_revision
    )
    return Call("Infer", request, _convert.inference_result)


def get_reference(reference_id: str) -> Call[ReferenceInfo]:
    request = reference_pb2.GetReferenceRequest(reference_id=reference_id)
    return Call("GetReference", request, lambda answer: _convert.reference_info(answer.reference))


def list_references(page_token: str) -> Call[tuple[list[ReferenceInfo], str]]:
    """One page, and the token of the next; empty at the end."""
    request = reference_pb2.ListReferencesRequest(page_token=page_token)
    return Call(
        "ListReferences",
        request,
        lambda answer: ([_convert.reference_info(item) for item in answer.references], answer.next_page_token),
    )


def list_loads(reference_id: str) -> Call[list[LoadProgress]]:
    request = reference_pb2.ListLoadsRequest(reference_id=reference_id)
    return Call("ListLoads", request, lambda answer: [_convert.load_progress(load) for load in answer.loads])


def delete_reference(reference_id: str, expected_revision: str) -> Call[str]:
    request = reference_pb2.DeleteReferenceRequest(reference_id=reference_id, expected_revision=expected_revision)
    return Call("DeleteReference", request, lambda answer: str(answer.revision))


def server_info() -> Call[ServerInfo]:
    return Call("GetServerInfo", server_info_pb2.GetServerInfoRequest(), _convert.server_info)


def health(service: str) -> Call[bool]:
    serving = health_pb2.HealthCheckResponse.SERVING
    return Call("Check", health_pb2.HealthCheckRequest(service=service), lambda answer: bool(answer.status == serving))


@dataclass(frozen=True, slots=True)
class StreamedLoad:
    """A load for LoadReferenceStream. `messages` reads each image when it is asked for."""

    messages: Iterator[reference_pb2.LoadReferenceStreamRequest]
    convert: Callable[[Any], ReferenceInfo]


def prepare_load(
    images: ImageSource | Iterable[ImageSource],
    *,
    reference_id: str,
    mode: LoadMode | str,
    profile: ScoringProfile | str | None,
    coreset_ratio: float | None,
    coreset_max_patches: int | None,
    search_radius: float | None,
    region_of_interest: Iterable[Polygon],
    approximate_search: bool | None,
    expected_revision: str,
) -> Call[ReferenceInfo] | StreamedLoad:
    """One message where it is small and safe to send twice, a stream otherwise. Reads at most UNARY_LOAD_BYTES."""
    request = _convert.load_request(
        reference_id=reference_id,
        mode=mode,
        profile=profile,
        coreset_ratio=coreset_ratio,
        coreset_max_patches=coreset_max_patches,
        search_radius=search_radius,
        region_of_interest=region_of_interest,
        approximate_search=approximate_search,
        expected_revision=expected_revision,
    )
    encoded_images = map(encoded, _images(images))
    first: list[bytes] = []
    if LoadMode(mode) is LoadMode.REPLACE or expected_revision:
        size_bytes = 0
        for image in encoded_images:
            first.append(image)
            size_bytes += len(image)
            if size_bytes > UNARY_LOAD_BYTES:
                break
        else:
            request.images.extend(first)
            return Call("LoadReference", request, _loaded)
    start = reference_pb2.LoadReferenceStreamRequest(start=request)
    rest = (reference_pb2.LoadReferenceStreamRequest(image=image) for image in itertools.chain(first, encoded_images))
    return StreamedLoad(itertools.chain([start], rest), _loaded)


def _loaded(answer: Any) -> ReferenceInfo:  # noqa: ANN401 - both loads' answers have the same field
    return _convert.reference_info(answer.reference)


def _images(images: ImageSource | Iterable[ImageSource]) -> Iterable[ImageSource]:
    """A single image counts as a set of one. Arrays and images are iterable too, hence the tests of type."""
    single = isinstance(images, (str, bytes, bytearray, memoryview, os.PathLike))
    if single or hasattr(type(images), "__array_interface__"):  # Pillow images and NumPy arrays
        return [images]  # type: ignore[list-item]
    return images  # type: ignore[return-value]
