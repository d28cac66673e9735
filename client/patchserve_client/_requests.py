"""Converts options and images to protobuf. Only this module writes the fields of requests with options.

Raises TypeError for an unknown option and ValueError for a value that no request can carry. The server checks the rest.
"""

from __future__ import annotations

import os
from datetime import UTC, timedelta
from pathlib import Path
from typing import TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from patchserve.v1 import inference_pb2, reference_pb2, stream_pb2
from patchserve_client import _choices as choices
from patchserve_client import _types as types
from patchserve_client._enums import to_wire
from patchserve_client._image_files import frame_id_of, image_name_of
from patchserve_client._images import encoded
from patchserve_client._options import InferOptions, LoadOptions, OutputOptions, StreamOptions, check_names

_N = TypeVar("_N", int, float)


def infer_request(image: types.ImageSource, reference_id: str, options: InferOptions) -> inference_pb2.InferRequest:
    """Reads or encodes the image: blocking."""
    check_names(options, InferOptions)
    return inference_pb2.InferRequest(
        reference_id=reference_id,
        output=_output_options(options),
        expected_revision=options.get("expected_revision", ""),
        image=encoded(image, bgr=options.get("bgr", False)),
        image_name=frame_id_of(options.get("image_name", "")) or _name(image),
        white_level=_white_level(options.get("white_level")),
    )


def stream_config(reference_id: str, options: StreamOptions) -> stream_pb2.InferStreamRequest:
    check_names(options, StreamOptions)
    overflow = options.get("overflow", choices.OverflowPolicy.BLOCK)
    ordering = options.get("ordering", choices.ResultOrdering.INPUT)
    config = stream_pb2.StreamConfig(
        reference_id=reference_id,
        output=_output_options(options),
        max_in_flight=_positive("max_in_flight", options.get("max_in_flight")),
        overflow=to_wire(choices.OverflowPolicy, overflow, stream_pb2.OverflowPolicy),
        ordering=to_wire(choices.ResultOrdering, ordering, stream_pb2.ResultOrdering),
        expected_revision=options.get("expected_revision", ""),
        white_level=_white_level(options.get("white_level")),
    )
    frame_timeout_s = options.get("frame_timeout_s")
    if frame_timeout_s is not None:
        frame_timeout = Duration()
        frame_timeout.FromTimedelta(timedelta(seconds=frame_timeout_s))
        config.frame_timeout.CopyFrom(frame_timeout)
    return stream_pb2.InferStreamRequest(config=config)


def frame_request(frame: types.Frame | types.ImageSource, *, bgr: bool = False) -> stream_pb2.InferStreamRequest:
    """Reads or encodes the image: blocking."""
    if not isinstance(frame, types.Frame):
        frame = types.Frame(frame)
    message = stream_pb2.Frame(frame_id=frame.frame_id or _name(frame.image), image=encoded(frame.image, bgr=bgr))
    if frame.capture_time is not None:
        capture_time = Timestamp()
        capture_time.FromDatetime(frame.capture_time.astimezone(UTC))  # a time without a zone is local time
        message.capture_time.CopyFrom(capture_time)
    return stream_pb2.InferStreamRequest(frame=message)


def _name(image: types.ImageSource) -> str:
    return frame_id_of(Path(image).name) if isinstance(image, (str, os.PathLike)) else ""


def image_name(image: types.ImageSource) -> str:
    """The name of an image of a load: that of its file; empty if it is none."""
    return image_name_of(Path(image).name) if isinstance(image, (str, os.PathLike)) else ""


def load_request(reference_id: str, options: LoadOptions) -> reference_pb2.LoadReferenceRequest:
    """A load without its images."""
    check_names(options, LoadOptions)
    request = reference_pb2.LoadReferenceRequest(
        reference_id=reference_id,
        mode=to_wire(choices.LoadMode, options.get("mode", choices.LoadMode.REPLACE), reference_pb2.LoadMode),
        expected_revision=options.get("expected_revision", ""),
        search_radius=options.get("search_radius"),
        region_of_interest=map(_polygon, options.get("region_of_interest", ())),
        approximate_search=options.get("approximate_search"),
        false_alarm_rate=options.get("false_alarm_rate"),
        white_level=_white_level(options.get("white_level")),
        sensitivity=options.get("sensitivity"),
    )
    profile = options.get("profile")
    if profile is not None:
        request.profile = to_wire(choices.ScoringProfile, profile, reference_pb2.ScoringProfile)
    views = options.get("views")
    if views is not None:
        request.views = to_wire(choices.ReferenceViews, views, reference_pb2.ReferenceViews)
    request.scales = _positive("scales", options.get("scales"))
    ratio, max_patches = options.get("coreset_ratio"), options.get("coreset_max_patches")
    if ratio is not None or max_patches is not None:
        request.coreset.ratio = _positive("coreset_ratio", ratio)
        request.coreset.max_patches = _positive("coreset_max_patches", max_patches)
    if (input_options := _input_options(options)) is not None:
        request.input.CopyFrom(input_options)
    return request


def _input_options(options: LoadOptions) -> reference_pb2.InputOptions | None:
    """None: no option is set."""
    input_px, aspect, overlap = options.get("input_px"), options.get("aspect"), options.get("tile_overlap")
    message = reference_pb2.InputOptions(tile_px=_positive("tile_px", options.get("tile_px")), tile_overlap=overlap)
    if isinstance(input_px, str):
        if input_px != "auto":
            raise ValueError(f'input_px must be a number of pixels or "auto", not {input_px!r}.')
        message.auto = True
    else:
        message.longer_side_px = _positive("input_px", input_px)
    if aspect is not None:
        message.aspect = to_wire(choices.AspectRatio, aspect, reference_pb2.AspectRatio)
    return message if message.ListFields() else None


def _output_options(options: OutputOptions) -> inference_pb2.OutputOptions:
    max_regions, sensitivity = options.get("max_regions"), options.get("sensitivity")
    if max_regions is not None and max_regions < 0:
        raise ValueError(f"max_regions must be 0 or more, not {max_regions}.")
    if sensitivity is not None and not sensitivity > 0:
        raise ValueError(f"sensitivity must be above 0, not {sensitivity}.")
    overlay_format = options.get("overlay_format", choices.OverlayFormat.PNG)
    output = inference_pb2.OutputOptions(
        overlay=options.get("overlay", False),
        score_map=options.get("score_map", False),
        max_regions=max_regions,
        sensitivity=sensitivity,
        overlay_format=to_wire(choices.OverlayFormat, overlay_format, inference_pb2.OverlayFormat),
        overlay_max_side_px=_positive("overlay_max_side_px", options.get("overlay_max_side_px")),
    )
    heatmap_scale = options.get("heatmap_scale")
    if heatmap_scale is not None:
        output.heatmap_scale = to_wire(choices.HeatmapScale, heatmap_scale, inference_pb2.HeatmapScale)
    return output


def _polygon(corners: types.Polygon) -> reference_pb2.RelativePolygon:
    try:
        return reference_pb2.RelativePolygon(points=[reference_pb2.RelativePoint(x=x, y=y) for x, y in corners])
    except (TypeError, ValueError) as error:
        message = f"region_of_interest must be polygons, each a sequence of corners (x, y); got {corners!r}."
        raise ValueError(message) from error


def _white_level(value: int | None) -> int | None:
    if value is not None and value < 0:
        raise ValueError(f"white_level must be above 0, not {value}.")
    return value


def _positive(name: str, value: _N | None) -> _N | int:
    """The value, or 0 if it is None. 0 means "not set" in the request, so it is not a valid value."""
    if value is None:
        return 0
    if not value > 0:
        raise ValueError(f"{name} must be above 0, not {value}.")
    return value
