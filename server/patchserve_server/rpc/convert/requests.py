"""Protobuf to domain: every request is checked here; nothing below sees a message."""

from __future__ import annotations

import base64
import binascii
import math
from typing import Any, Final

from patchserve.v1 import inference_pb2, reference_pb2, stream_pb2
from patchserve_server.domain.errors import InvalidInputError
from patchserve_server.domain.inspection import DEFAULT_MAX_REGIONS, OutputOptions
from patchserve_server.domain.reference import (
    MAX_REGION_POINTS,
    CoresetOptions,
    checked_approximate_search,
    checked_expected_revision,
    checked_reference_id,
    checked_region_of_interest,
    checked_search_radius,
)
from patchserve_server.domain.stream import Frame, StreamConfig
from patchserve_server.rpc.convert.enums import FORMATS, MODES, ORDERINGS, OVERFLOWS, PROFILES, SCALES, enum_value
from patchserve_server.serving.application import ServerLimits
from patchserve_server.serving.reference_builder import LoadOptions

MAX_REGIONS: Final = 1000
SENSITIVITY_RANGE: Final = (0.1, 10.0)
OVERLAY_SIDE_RANGE_PX: Final = (16, 65_535)
MIN_CORESET_PATCHES: Final = 16
DEFAULT_PAGE_SIZE: Final = 100
MAX_PAGE_SIZE: Final = 1000


def load_options(request: reference_pb2.LoadReferenceRequest) -> LoadOptions:
    """Everything of a load but its images."""
    return LoadOptions(
        reference_id=checked_reference_id(request.reference_id),
        append=enum_value(MODES, request.mode, "mode"),
        chosen=_chosen_options(request),
        expected_revision=checked_expected_revision(request.expected_revision),
    )


def _chosen_options(request: reference_pb2.LoadReferenceRequest) -> dict[str, Any]:
    """The fields of ReferenceOptions that the caller named."""
    chosen: dict[str, Any] = {}
    if (profile := enum_value(PROFILES, request.profile, "profile")) is not None:
        chosen["profile"] = profile
    if request.HasField("coreset"):
        chosen["coreset"] = _coreset_options(request.coreset)
    if request.HasField("search_radius"):
        chosen["search_radius"] = checked_search_radius(request.search_radius)
    if request.HasField("approximate_search"):
        chosen["approximate_search"] = checked_approximate_search(
            request.approximate_search, chosen.get("search_radius")
        )
    if request.region_of_interest:
        # No more than it takes to see that it is too much.
        polygons = (
            polygon.points[: MAX_REGION_POINTS + 1] for polygon in request.region_of_interest[:MAX_REGION_POINTS]
        )
        region = tuple(tuple((point.x, point.y) for point in points) for points in polygons)
        chosen["region_of_interest"] = checked_region_of_interest(region)
    return chosen


def _coreset_options(message: reference_pb2.CoresetOptions) -> CoresetOptions:
    if message.ratio and message.max_patches:
        raise InvalidInputError("coreset", "coreset takes a ratio or max_patches, not both.")
    if not 0 <= message.ratio <= 1:  # catches NaN too
        raise InvalidInputError("coreset.ratio", "coreset.ratio is above 0 and at most 1.")
    if message.max_patches and message.max_patches < MIN_CORESET_PATCHES:
        raise InvalidInputError("coreset.max_patches", f"coreset.max_patches is at least {MIN_CORESET_PATCHES}.")
    return CoresetOptions(message.ratio or None, message.max_patches or None)


def output_options(message: inference_pb2.OutputOptions, field: str = "output") -> OutputOptions:
    max_regions = message.max_regions if message.HasField("max_regions") else DEFAULT_MAX_REGIONS
    if max_regions > MAX_REGIONS:
        raise InvalidInputError(f"{field}.max_regions", f"{field}.max_regions is 0 to {MAX_REGIONS}.")
    sensitivity = message.sensitivity if message.HasField("sensitivity") else 1.0
    low, high = SENSITIVITY_RANGE
    if not low * (1 - 1e-6) <= sensitivity <= high:  # it came as a float32; catches NaN too
        raise InvalidInputError(f"{field}.sensitivity", f"{field}.sensitivity is {low:g} to {high:g}.")
    shortest, longest = OVERLAY_SIDE_RANGE_PX
    max_side_px = message.overlay_max_side_px
    if max_side_px and not shortest <= max_side_px <= longest:
        name = f"{field}.overlay_max_side_px"
        raise InvalidInputError(name, f"{name} is {shortest} to {longest}; 0 takes the image's own size.")
    return OutputOptions(
        overlay=message.overlay,
        heatmap_scale=enum_value(SCALES, message.heatmap_scale, f"{field}.heatmap_scale"),
        score_map=message.score_map,
        max_regions=max_regions,
        sensitivity=sensitivity,
        overlay_format=enum_value(FORMATS, message.overlay_format, f"{field}.overlay_format"),
        overlay_max_side_px=max_side_px,
    )


def stream_config(message: stream_pb2.StreamConfig, limits: ServerLimits) -> StreamConfig:
    if message.max_in_flight > limits.max_in_flight:
        text = f"config.max_in_flight is at most {limits.max_in_flight} here; 0 takes {limits.default_in_flight}."
        raise InvalidInputError("config.max_in_flight", text)
    frame_timeout_s = None
    if message.HasField("frame_timeout"):
        frame_timeout_s = message.frame_timeout.seconds + message.frame_timeout.nanos / 1e9
        if frame_timeout_s <= 0 or not math.isfinite(frame_timeout_s):
            raise InvalidInputError("config.frame_timeout", "config.frame_timeout is positive; leave it out for none.")
    return StreamConfig(
        reference_id=checked_reference_id(message.reference_id),
        expected_revision=checked_expected_revision(message.expected_revision, "config.expected_revision"),
        output=output_options(message.output, "config.output"),
        max_in_flight=message.max_in_flight or limits.default_in_flight,
        overflow=enum_value(OVERFLOWS, message.overflow, "config.overflow"),
        ordering=enum_value(ORDERINGS, message.ordering, "config.ordering"),
        frame_timeout_s=frame_timeout_s,
    )


def frame(message: stream_pb2.Frame) -> Frame:
    captured = message.capture_time
    capture_time = (captured.seconds, captured.nanos) if message.HasField("capture_time") else None
    return Frame(message.frame_id, capture_time, message.image)


def loads_of(request: reference_pb2.ListLoadsRequest) -> str:
    """The reference whose loads are meant; empty: all."""
    return request.reference_id and checked_reference_id(request.reference_id)


def page(request: reference_pb2.ListReferencesRequest) -> tuple[str, int]:
    """The id after which the page begins, and its size."""
    if request.page_size > MAX_PAGE_SIZE:
        raise InvalidInputError("page_size", f"page_size is 1 to {MAX_PAGE_SIZE}; 0 takes {DEFAULT_PAGE_SIZE}.")
    try:
        after_id = base64.b64decode(request.page_token, b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError) as error:
        raise InvalidInputError("page_token", "page_token is not one that ListReferences returned.") from error
    return after_id, request.page_size or DEFAULT_PAGE_SIZE
