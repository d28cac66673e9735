"""The arguments and results of both clients: frozen data, no protobuf."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from patchserve_client import _saving
from patchserve_client._choices import (
    AspectRatio,
    CalibrationMethod,
    DriftState,
    LoadStage,
    NoticeKind,
    ReferenceOperation,
    ReferenceViews,
    ScoringProfile,
)
from patchserve_client._counted import counted
from patchserve_client._errors import PatchserveError
from patchserve_client._verdicts import verdict_text

if TYPE_CHECKING:  # the first call that needs NumPy or Pillow loads it
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

ImageSource: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | Image | NDArray[np.generic]"
"""An image: a path, encoded bytes, a Pillow image, or an array (see `Client.infer`)."""

Polygon: TypeAlias = Sequence[tuple[float, float]]
"""Three or more corners (x, y) as shares of the image's width and height: 0 to 1, from the top left."""


@dataclass(frozen=True, slots=True)
class DamageScore:
    """The notebook's measure, relative to the range of each image. Use AnomalyScore to compare images."""

    damage_percentage: float  # 0..100
    anomaly_detected: bool
    threshold: float


@dataclass(frozen=True, slots=True)
class AnomalyScore:
    """The verdict: absolute distances compared with the calibrated threshold. As text: "anomalous 1.38 x"."""

    score: float  # 0..1, 0.5 at the threshold
    raw_score: float
    raw_threshold: float
    is_anomalous: bool
    anomalous_area_percentage: float  # 0..100

    @property
    def ratio(self) -> float:
        """How many times the threshold the image reaches: raw_score / raw_threshold. Anomalous is above 1."""
        if self.raw_threshold == 0:
            return math.inf if self.raw_score > 0 else 0.0
        return self.raw_score / self.raw_threshold

    def __str__(self) -> str:
        return verdict_text(self)


@dataclass(frozen=True, slots=True)
class BoundingBox:
    """A rectangle in pixels of the upright source image."""

    x_px: int
    y_px: int
    width_px: int
    height_px: int


@dataclass(frozen=True, slots=True)
class Region:
    """A connected area of anomalous pixels, in pixels of the upright source image. Intact images have none."""

    bounding_box: BoundingBox
    polygon: tuple[tuple[int, int], ...]  # (x_px, y_px), clockwise, not closed
    area_px: float
    area_percentage: float
    peak_score: float  # above 0.5, at most AnomalyScore.score of the image


@dataclass(frozen=True, slots=True)
class Timing:
    """The server's time for each stage, in milliseconds; 0: the stage was not run."""

    queue_ms: float
    decode_ms: float
    embed_ms: float
    search_ms: float
    render_ms: float
    total_ms: float


@dataclass(frozen=True, slots=True, eq=False)
class EncodedOverlay:
    """The heat map over the image, as the server sent it."""

    data: bytes = field(repr=False)
    media_type: str  # such as "image/png"
    width_px: int
    height_px: int
    source_width_px: int  # the pixels that regions are measured in
    source_height_px: int


@dataclass(frozen=True, slots=True, eq=False)
class InferenceResult:
    """The result of one image."""

    reference_id: str
    reference_revision: str
    damage: DamageScore
    anomaly: AnomalyScore
    regions: tuple[Region, ...]  # the highest score first; empty: intact, or none requested
    encoded_overlay: EncodedOverlay | None  # None: not requested
    score_map: NDArray[np.float32] | None  # (H, W) raw distances, NaN outside the ROI; None: not requested
    timing: Timing

    def __str__(self) -> str:
        """The verdict in a few words, as in "anomalous 1.38 x, 2 regions"."""
        return f"{self.anomaly}, {counted(len(self.regions), 'region')}" if self.regions else str(self.anomaly)

    def __repr__(self) -> str:
        return f"<InferenceResult {self}, reference {self.reference_id!r}>"

    @property
    def overlay(self) -> Image | None:
        """The heat map over the image, opened with Pillow; None if it was not requested."""
        if self.encoded_overlay is None:
            return None
        from PIL import Image  # noqa: PLC0415 - loaded on first use

        return Image.open(io.BytesIO(self.encoded_overlay.data))

    def to_dict(self) -> dict[str, Any]:
        """Everything that JSON can hold: the fields by name, without the pixels of overlay and score map."""
        return _saving.as_dict(self)

    def save(self, folder: str | os.PathLike[str], name: str = "result") -> list[Path]:
        """Write NAME.json, and what was requested of NAME_overlay.png (or .jpg, .webp) and NAME_score_map.npy.

        Creates the folder and replaces earlier files. Returns the files.

        Raises:
            OSError: a file cannot be written.
        """
        return _saving.save(self, Path(folder), name)


@dataclass(frozen=True, slots=True)
class ScoreSpread:
    """Statistics of the raw image scores of normal images."""

    count: int
    min: float
    mean: float
    stddev: float
    max: float
    scores: tuple[float, ...]  # the scores, the lowest first: all, or 256 that divide them evenly; empty: not known


@dataclass(frozen=True, slots=True)
class Calibration:
    """The raw thresholds of a reference, computed from its own images only."""

    method: CalibrationMethod | None  # None: unknown to this client
    image_threshold: float
    patch_threshold: float
    normal_scores: ScoreSpread
    false_alarm_rate: float | None  # share of other undamaged items expected above image_threshold; None: not known
    false_alarm_rate_upper: float | None  # what that share is at most, with 95 % confidence; None: not known


@dataclass(frozen=True, slots=True)
class ReferenceImage:
    """An image that a reference was built from, as it was loaded. Without a media type, nothing is known about it."""

    name: str  # of its file; empty: none
    media_type: str  # such as "image/jpeg"
    width_px: int  # upright
    height_px: int
    size_bytes: int  # encoded


@dataclass(frozen=True, slots=True)
class Drift:
    """How recent scores compare with the normal scores of the calibration, as of the last comparison."""

    state: DriftState | None  # None: unknown to this client
    image_count: int  # recent images that were compared
    shift: float | None  # the probability that a recent score is above a normal one; None: nothing was compared
    outlier_share: float | None  # of recent images that are anomalous, and above all normal scores; None: as `shift`
    since: datetime | None  # UTC, when this state began


@dataclass(frozen=True, slots=True)
class ReferenceInfo:
    """The description of a reference on the server."""

    reference_id: str
    revision: str  # a digest: equal content has the same revision
    image_count: int
    patch_count: int
    feature_dim: int
    profile: ScoringProfile | None  # None: unknown to this client
    calibration: Calibration
    threshold: float  # the raw score at which AnomalyScore.score is 0.5, at the reference's sensitivity
    sensitivity: float  # 1: the thresholds of the calibration
    create_time: datetime  # UTC
    update_time: datetime  # UTC
    backbone: str
    weights_digest: str
    precision: str
    coreset_ratio: float | None
    coreset_max_patches: int | None
    search_radius: float | None  # None: the whole image
    region_of_interest: tuple[Polygon, ...]  # empty: the whole image
    approximate_search: bool
    input_px: int | Literal["auto"] | None  # the longer side that the load requested; None: none
    aspect: AspectRatio | None  # None: unknown to this client
    tile_px: int | None  # None: the backbone sees whole model inputs
    tile_overlap: float | None  # of neighboring tiles, as a share of a tile's side; None: no tiles
    views: ReferenceViews | None  # mirrored and turned copies of its images; None: unknown to this client
    scales: int  # 1 to 3: how many sizes of the items its bank has
    views_per_image: int | None  # that its bank was made of, the image itself included; None: not known
    input_width_px: int  # of its model inputs
    input_height_px: int
    false_alarm_rate: float | None  # that the load requested; None: none, the server's default
    white_level: int | None  # in images with 16 bits per sample; None: what each file says
    bank_bytes: int
    previous_revision: str  # that `restore_reference` puts back; empty: none is kept
    images: tuple[ReferenceImage, ...] = field(compare=False)  # from `get_reference` only; otherwise empty
    cost: LoadCost | None = field(compare=False)  # from `load_reference` only; otherwise None
    drift: Drift | None = field(compare=False)  # from `get_reference` and `list_references` only; otherwise None

    def __repr__(self) -> str:
        images = counted(self.image_count, "image")
        return f"<ReferenceInfo {self.reference_id!r}: {images}, revision {self.revision[:12]}>"


@dataclass(frozen=True, slots=True)
class KeptRevision:
    """A revision of a reference that the server keeps."""

    reference: ReferenceInfo  # as it is or was; its update_time is when this revision was made
    operation: ReferenceOperation | None  # that made it; None: not known
    is_current: bool


@dataclass(frozen=True, slots=True)
class LoadCost:
    """What a reference costs, as measured when it was loaded."""

    patches_per_image: int  # of each image that is compared with it
    memory_bytes: int  # of the server while the reference is open
    ms_per_image: float  # embedding and search of one image, alone, without decoding and drawing
    search_recall: float  # the share of the nearest rows that a search finds; 1: it is exact; 0: an older server


@dataclass(frozen=True, slots=True, eq=False)
class EncodedReferenceImage:
    """An image that a reference was built from, as the backbone saw it: scaled, and gray outside the ROI."""

    data: bytes = field(repr=False)
    media_type: str  # such as "image/png"
    width_px: int
    height_px: int
    name: str  # of its file; empty: none
    reference_revision: str

    @property
    def image(self) -> Image:
        """The image, opened with Pillow."""
        from PIL import Image  # noqa: PLC0415 - loaded on first use

        return Image.open(io.BytesIO(self.data))


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """The progress of an active load. With 0 steps done in EMBED it may wait for another load."""

    reference_id: str
    stage: LoadStage | None  # None: unknown to this client
    steps_done: int  # of this stage: images; in CORESET selected patches
    steps_total: int  # 0: unknown
    start_time: datetime  # UTC
    image_count: int  # images received so far


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One image of a stream. Its result carries the same `frame_id` (at most 128 bytes) and `capture_time`.

    Without a `frame_id`, that of a path is its name.
    """

    image: ImageSource = field(repr=False)
    frame_id: str = ""
    capture_time: datetime | None = None


@dataclass(frozen=True, slots=True, eq=False)
class FrameResult:
    """The outcome of one frame. Exactly one of `result` and `error` is set."""

    frame_id: str
    sequence: int  # the frame's place in the stream, 0 for the first
    capture_time: datetime | None
    result: InferenceResult | None
    error: PatchserveError | None

    def __repr__(self) -> str:
        outcome = self.result if self.error is None else self.error.reason or self.error.code
        return f"<FrameResult {self.sequence} {self.frame_id!r}: {outcome}>"


@dataclass(frozen=True, slots=True)
class StreamNotice:
    """A message about the stream that is not a result: of the server, or of this client about its connection."""

    kind: NoticeKind | None  # None: unknown to this client
    message: str
