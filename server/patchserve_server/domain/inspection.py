"""What is found on one image."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from patchserve_server.domain.images import AnomalyMap

DEFAULT_MAX_REGIONS = 16


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
    """What an answer contains beside the scores. What is not asked for is not computed."""

    overlay: bool = False
    heatmap_scale: HeatmapScale | None = None  # None: the server's setting
    score_map: bool = False
    max_regions: int = DEFAULT_MAX_REGIONS
    sensitivity: float = 1.0  # thresholds are divided by it
    overlay_format: OverlayFormat = OverlayFormat.PNG
    overlay_max_side_px: int = 0  # 0: the image's own size


@dataclass(frozen=True, slots=True)
class DamageScore:
    """The notebook's own measure, on the map stretched to its own range (DESIGN: Notebook pipeline)."""

    damage_percentage: float  # 0..100
    anomaly_detected: bool
    threshold: float = 0.5


@dataclass(frozen=True, slots=True)
class AnomalyScore:
    """The verdict: absolute distances against the calibrated threshold."""

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
    """A connected area over the patch threshold, in pixels of the upright source image."""

    bounding_box: BoundingBox
    polygon: tuple[tuple[int, int], ...]  # (x_px, y_px), clockwise, not closed
    area_px: float
    area_percentage: float
    peak_score: float  # 0.5..1, scaled like AnomalyScore.score but against the patch threshold


@dataclass(frozen=True, slots=True, eq=False)
class Detection:
    """What the engine says of one model input."""

    anomaly_map: AnomalyMap  # (S, S) float32, NaN outside of the region of interest
    damage: DamageScore
    anomaly: AnomalyScore


@dataclass(frozen=True, slots=True, eq=False)
class EncodedOverlay:
    """The heat map over the image."""

    data: bytes
    format: OverlayFormat
    size_px: tuple[int, int]  # (width, height)


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the time went, in milliseconds."""

    queue_ms: float = 0.0
    decode_ms: float = 0.0
    embed_ms: float = 0.0
    search_ms: float = 0.0
    render_ms: float = 0.0
    total_ms: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Inspection:
    """The whole answer about one image."""

    reference_id: str
    reference_revision: str
    detection: Detection
    source_size_px: tuple[int, int]  # (width, height)
    regions: tuple[Region, ...] = ()
    overlay: EncodedOverlay | None = None  # None: not asked for
    score_map: AnomalyMap | None = None  # None: not asked for
    timing: Timing = field(default_factory=Timing)

    @property
    def nbytes(self) -> int:
        """What it takes in memory until it is sent, without small things."""
        return self.detection.anomaly_map.nbytes + (len(self.overlay.data) if self.overlay is not None else 0)
