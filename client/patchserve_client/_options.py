"""The keyword options of the calls, each listed once. Both clients and the requests use these lists."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, TypedDict

from patchserve_client._choices import (
    AspectRatio,
    HeatmapScale,
    LoadMode,
    OverflowPolicy,
    OverlayFormat,
    ReferenceViews,
    ResultOrdering,
    ScoringProfile,
)
from patchserve_client._types import Polygon


class OutputOptions(TypedDict, total=False):
    """What the server returns in addition to the scores."""

    overlay: bool
    heatmap_scale: HeatmapScale | str | None
    score_map: bool
    max_regions: int | None
    sensitivity: float | None
    overlay_format: OverlayFormat | str
    overlay_max_side_px: int | None


class RequestOptions(OutputOptions, total=False):
    """What to return, and how to read the image."""

    white_level: int | None


class InferOptions(RequestOptions, total=False):
    """Options of `Client.infer`; see there."""

    bgr: bool
    image_name: str
    expected_revision: str


class StreamOptions(RequestOptions, total=False):
    """Options of `Client.infer_stream`; see there."""

    max_in_flight: int | None
    overflow: OverflowPolicy | str
    ordering: ResultOrdering | str
    frame_timeout_s: float | None
    bgr: bool
    expected_revision: str


class LoadOptions(TypedDict, total=False):
    """Options of `Client.load_reference`; see there."""

    mode: LoadMode | str
    profile: ScoringProfile | str | None
    coreset_ratio: float | None
    coreset_max_patches: int | None
    search_radius: float | None
    region_of_interest: Iterable[Polygon]
    approximate_search: bool | None
    input_px: int | Literal["auto"] | None
    aspect: AspectRatio | str | None
    tile_px: int | None
    tile_overlap: float | None
    views: ReferenceViews | str | None
    scales: int | None
    false_alarm_rate: float | None
    white_level: int | None
    sensitivity: float | None
    bgr: bool
    expected_revision: str


def check_names(options: Mapping[str, object], supported: type) -> None:
    """Reject unknown options. Python does not check the names of `**options: Unpack[...]`.

    Raises:
        TypeError: an option is not in `supported`, one of the classes above.
    """
    names = list(supported.__annotations__)
    unknown = [name for name in options if name not in names]
    if unknown:
        raise TypeError(f"Unknown option: {', '.join(unknown)}; supported: {', '.join(names)}.")
