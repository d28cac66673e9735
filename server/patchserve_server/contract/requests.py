"""Converts protobuf to domain values, which check themselves. No other layer uses protobuf messages."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import numpy as np

from patchserve.v1 import inference_pb2, reference_pb2, stream_pb2
from patchserve_server.contract.enums import (
    ASPECTS,
    FORMATS,
    MODES,
    ORDERINGS,
    OVERFLOWS,
    PROFILES,
    SCALES,
    VIEWS,
    enum_value,
)
from patchserve_server.domain.call_events import note_reference
from patchserve_server.domain.errors import InvalidInputError
from patchserve_server.domain.images import SentImage
from patchserve_server.domain.input_options import DEFAULT_TILE_OVERLAP, InputOptions
from patchserve_server.domain.inspection import DEFAULT_MAX_REGIONS, OutputOptions
from patchserve_server.domain.reference_id import DEFAULT_REFERENCE_ID, ReferenceId, Revision
from patchserve_server.domain.reference_image import NamedImage
from patchserve_server.domain.reference_options import (
    MAX_REGION_POINTS,
    CoresetOptions,
    RegionOfInterest,
    RequestedOptions,
)
from patchserve_server.domain.stream import Frame, StreamConfig
from patchserve_server.serving.application import ServerLimits
from patchserve_server.serving.reference_builder import LoadOptions
from patchserve_server.serving.reference_transfer import ImportOptions
from patchserve_server.serving.streams import MAX_FRAME_ID_BYTES

DEFAULT_PAGE_SIZE: Final = 100
MAX_PAGE_SIZE: Final = 1000


@contextmanager
def in_field(name: str) -> Iterator[None]:
    """Adds the path in the request to the field of an error.

    Raises:
        InvalidInputError: for the field `name`, or for one inside it.
    """
    try:
        yield
    except InvalidInputError as error:
        raise error.with_prefix(name) from error


def reference_id(text: str, field: str = "reference_id") -> ReferenceId:
    """The id, or `default` if the field is empty. Whoever hears of the call learns it.

    Raises:
        InvalidInputError: it is not a reference id.
    """
    try:
        named = ReferenceId(text) if text else DEFAULT_REFERENCE_ID
    except InvalidInputError as error:
        raise error.with_field(field) from error
    note_reference(named)
    return named


def expected_revision(text: str, field: str = "expected_revision") -> Revision | None:
    """The revision; None (any revision) if the field is empty.

    Raises:
        InvalidInputError: it is not a revision.
    """
    try:
        return Revision(text) if text else None
    except InvalidInputError as error:
        raise error.with_field(field) from error


def image_name(text: str) -> str:
    """The caller's name for an image; it may be empty.

    Raises:
        InvalidInputError: it is too long.
    """
    if len(text.encode()) > MAX_FRAME_ID_BYTES:
        raise InvalidInputError("image_name", f"image_name is at most {MAX_FRAME_ID_BYTES} bytes.")
    return text


def load_options(request: reference_pb2.LoadReferenceRequest) -> LoadOptions:
    """The options of a load, without its images."""
    return LoadOptions(
        reference_id=reference_id(request.reference_id),
        append=enum_value(MODES, request.mode, "mode"),
        requested=_requested_options(request),
        expected_revision=expected_revision(request.expected_revision),
        sensitivity=request.sensitivity if request.HasField("sensitivity") else None,
    )


def import_options(start: reference_pb2.ImportStart) -> ImportOptions:
    """How a file is imported."""
    with in_field("start"):
        return ImportOptions(
            size_bytes=start.size_bytes,
            reference_id=reference_id(start.reference_id) if start.reference_id else None,
            expected_revision=expected_revision(start.expected_revision),
        )


def named_images(request: reference_pb2.LoadReferenceRequest) -> list[NamedImage]:
    """The images of a load with their names.

    Raises:
        InvalidInputError: a name is invalid, or there are names, but not one for each image.
    """
    images, names = request.images, request.image_names
    if names and len(names) != len(images):
        message = f"image_names must have one name for each image: {len(images)}, not {len(names)}."
        raise InvalidInputError("image_names", message)
    named = []
    for index, image in enumerate(images):
        try:
            named.append(NamedImage(image, names[index] if names else ""))
        except InvalidInputError as error:
            raise error.with_field(f"image_names[{index}]") from error
    return named


def _requested_options(request: reference_pb2.LoadReferenceRequest) -> RequestedOptions:
    """The options that the caller set."""
    return RequestedOptions(
        profile=enum_value(PROFILES, request.profile, "profile"),
        coreset=_coreset_options(request.coreset) if request.HasField("coreset") else None,
        search_radius=request.search_radius if request.HasField("search_radius") else None,
        region_of_interest=_region_of_interest(request.region_of_interest) if request.region_of_interest else None,
        approximate_search=request.approximate_search if request.HasField("approximate_search") else None,
        input=_input_options(request.input) if request.HasField("input") else None,
        views=enum_value(VIEWS, request.views, "views"),
        scales=request.scales or None,
        false_alarm_rate=request.false_alarm_rate if request.HasField("false_alarm_rate") else None,
        white_level=request.white_level if request.HasField("white_level") else None,
    )


def _input_options(message: reference_pb2.InputOptions) -> InputOptions:
    with in_field("input"):
        return InputOptions(
            longer_side_px=message.longer_side_px or None,
            auto=message.auto,
            aspect=enum_value(ASPECTS, message.aspect, "aspect"),
            tile_px=message.tile_px or None,
            tile_overlap=message.tile_overlap if message.HasField("tile_overlap") else DEFAULT_TILE_OVERLAP,
        )


def _coreset_options(message: reference_pb2.CoresetOptions) -> CoresetOptions:
    with in_field("coreset"):
        return CoresetOptions(message.ratio or None, message.max_patches or None)


def _region_of_interest(polygons: Sequence[reference_pb2.RelativePolygon]) -> RegionOfInterest:
    """Converts the polygons, and stops early if there are too many points."""
    limit = MAX_REGION_POINTS + 1
    return tuple(tuple((point.x, point.y) for point in polygon.points[:limit]) for polygon in polygons[:limit])


def output_options(message: inference_pb2.OutputOptions, field: str = "output") -> OutputOptions:
    with in_field(field):
        return OutputOptions(
            overlay=message.overlay,
            heatmap_scale=enum_value(SCALES, message.heatmap_scale, "heatmap_scale"),
            score_map=message.score_map,
            max_regions=message.max_regions if message.HasField("max_regions") else DEFAULT_MAX_REGIONS,
            sensitivity=_decimal(message.sensitivity) if message.HasField("sensitivity") else None,
            overlay_format=enum_value(FORMATS, message.overlay_format, "overlay_format"),
            overlay_max_side_px=message.overlay_max_side_px,
        )


def _decimal(value: float) -> float:
    """The number that the caller wrote: 0.1 in a field of type float is read as 0.10000000149."""
    return float(str(np.float32(value)))


def stream_config(message: stream_pb2.StreamConfig, limits: ServerLimits) -> StreamConfig:
    if message.max_in_flight > limits.max_in_flight:
        text = f"max_in_flight must be at most {limits.max_in_flight}; 0 means {limits.default_in_flight}."
        raise InvalidInputError("config.max_in_flight", text)
    frame_timeout_s = None
    if message.HasField("frame_timeout"):
        frame_timeout_s = message.frame_timeout.seconds + message.frame_timeout.nanos / 1e9
    with in_field("config"):
        return StreamConfig(
            reference_id=reference_id(message.reference_id),
            expected_revision=expected_revision(message.expected_revision),
            output=output_options(message.output),
            max_in_flight=message.max_in_flight or limits.default_in_flight,
            overflow=enum_value(OVERFLOWS, message.overflow, "overflow"),
            ordering=enum_value(ORDERINGS, message.ordering, "ordering"),
            frame_timeout_s=frame_timeout_s,
            white_level=message.white_level if message.HasField("white_level") else None,
        )


def sent_image(request: inference_pb2.InferRequest) -> SentImage:
    return SentImage(request.image, request.white_level if request.HasField("white_level") else None)


def frame(message: stream_pb2.Frame) -> Frame:
    captured = message.capture_time
    capture_time = (captured.seconds, captured.nanos) if message.HasField("capture_time") else None
    return Frame(message.frame_id, capture_time, message.image)


def loads_of(request: reference_pb2.ListLoadsRequest) -> ReferenceId | None:
    """The reference whose loads are requested; None: all loads."""
    return reference_id(request.reference_id) if request.reference_id else None


def page(request: reference_pb2.ListReferencesRequest) -> tuple[str, int]:
    """The id after which the page starts, and the size of the page."""
    if request.page_size > MAX_PAGE_SIZE:
        raise InvalidInputError("page_size", f"page_size must be 1 to {MAX_PAGE_SIZE}; 0 means {DEFAULT_PAGE_SIZE}.")
    try:
        after_id = base64.b64decode(request.page_token, b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError) as error:
        raise InvalidInputError("page_token", "page_token is not one that ListReferences returned.") from error
    return after_id, request.page_size or DEFAULT_PAGE_SIZE
