"""The inspection of one image: options, scores, regions, overlay."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace

from patchserve_server.domain.errors import InvalidInputError
from patchserve_server.domain.images import AnomalyMap
from patchserve_server.domain.reference_id import ReferenceId, Revision
from patchserve_server.domain.sensitivity import check_sensitivity

DEFAULT_MAX_REGIONS = 16
MAX_REGIONS = 1000
OVERLAY_SIDE_RANGE_PX = (16, 65_535)


class HeatmapScale(enum.Enum):
    """How raw distances become colors."""

    RELATIVE = "relative"
    CALIBRATED = "calibrated"


class OverlayFormat(enum.Enum):
    """How an overlay is encoded."""

    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """The optional parts of a response. A part that is not requested is not computed.

    Raises:
        InvalidInputError: a value is out of its range.
    """

    overlay: bool = False
    heatmap_scale: HeatmapScale | None = None  # None: the server's setting
    score_map: bool = False
    max_regions: int = DEFAULT_MAX_REGIONS  # 0 to MAX_REGIONS
    sensitivity: float | None = None  # in place of the reference's own; None: the reference's own
    overlay_format: OverlayFormat = OverlayFormat.PNG
    overlay_max_side_px: int = 0  # within OVERLAY_SIDE_RANGE_PX; 0: the image's own size

    def __post_init__(self) -> None:
        if not 0 <= self.max_regions <= MAX_REGIONS:
            raise InvalidInputError("max_regions", f"max_regions must be 0 to {MAX_REGIONS}.")
        if self.sensitivity is not None:
            check_sensitivity(self.sensitivity)
        shortest, longest = OVERLAY_SIDE_RANGE_PX
        if self.overlay_max_side_px and not shortest <= self.overlay_max_side_px <= longest:
            message = f"overlay_max_side_px must be {shortest} to {longest}, or 0 for the image's own size."
            raise InvalidInputError("overlay_max_side_px", message)


@dataclass(frozen=True, slots=True, eq=False)
class RawScores:
    """The distances of one image to a bank, before any threshold."""

    image_score: float
    anomaly_map: AnomalyMap  # (H, W) float32, NaN outside the region of interest; may be a view into those of a batch

    def alone(self) -> RawScores:
        """The same, to be kept: it does not hold the maps of other images."""
        return self if self.anomaly_map.base is None else replace(self, anomaly_map=self.anomaly_map.copy())


@dataclass(frozen=True, slots=True)
class DamageScore:
    """The notebook's measure, on the map scaled to its own range (docs/adr/0004)."""

    damage_percentage: float  # 0..100
    anomaly_detected: bool
    threshold: float = 0.5


@dataclass(frozen=True, slots=True)
class AnomalyScore:
    """The calibrated measure: absolute distances against the threshold."""

    score: float  # 0..1, 0.5 at the threshold
    raw_score: float
    raw_threshold: float
    is_anomalous: bool
    anomalous_area_percentage: float  # 0..100


@dataclass(frozen=True, slots=True)
class BoundingBox:
    """A rectangle in pixels of the upright source image."""

    x_px: int
    y_px: int
    width_px: int
    height_px: int


@dataclass(frozen=True, slots=True)
class Region:
    """A connected area of an anomalous image above its pixel threshold, in pixels of the upright source image."""

    bounding_box: BoundingBox
    polygon: tuple[tuple[int, int], ...]  # (x_px, y_px), clockwise, not closed
    area_px: float
    area_percentage: float
    peak_score: float  # above 0.5, and at most the AnomalyScore.score of the image


@dataclass(frozen=True, slots=True)
class Verdict:
    """Both scores of one image, compared with the thresholds."""

    damage: DamageScore
    anomaly: AnomalyScore
    pixel_threshold: float  # the raw score above which a pixel is anomalous; a pixel is exactly if the image is


@dataclass(frozen=True, slots=True, eq=False)
class EncodedOverlay:
    """The heat map over the image."""

    data: bytes
    format: OverlayFormat
    size_px: tuple[int, int]  # (width, height)


@dataclass(frozen=True, slots=True)
class Timing:
    """The time of each step, in milliseconds."""

    queue_ms: float = 0.0
    decode_ms: float = 0.0
    embed_ms: float = 0.0
    search_ms: float = 0.0
    render_ms: float = 0.0
    total_ms: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Inspection:
    """The complete result for one image."""

    reference_id: ReferenceId
    reference_revision: Revision
    verdict: Verdict
    source_size_px: tuple[int, int]  # (width, height)
    regions: tuple[Region, ...] = ()
    overlay: EncodedOverlay | None = None  # None: not requested
    score_map: AnomalyMap | None = None  # None: not requested
    timing: Timing = field(default_factory=Timing)

    @property
    def nbytes(self) -> int:
        """The memory that it uses until it is sent: score map and overlay."""
        score_map = 0 if self.score_map is None else self.score_map.nbytes
        return score_map + (0 if self.overlay is None else len(self.overlay.data))
