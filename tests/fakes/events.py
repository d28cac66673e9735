"""What the wall hears: inspections without an engine."""

from __future__ import annotations

from collections.abc import Callable

from patchserve_server.domain.events import ImageInspected, InspectionFailed, Origin
from patchserve_server.domain.images import SentImage
from patchserve_server.domain.inspection import (
    AnomalyScore,
    DamageScore,
    EncodedOverlay,
    Inspection,
    OverlayFormat,
    Timing,
    Verdict,
)
from patchserve_server.domain.reference import Calibration, CalibrationMethod, ScoreSpread
from patchserve_server.domain.reference_id import DEFAULT_REFERENCE_ID, ReferenceId, Revision

OTHER = ReferenceId("other")
REVISION = Revision("0" * 64)
ORIGIN = Origin("peer ipv4:127.0.0.1", "a.png", is_frame=False)
CALIBRATION = Calibration(CalibrationMethod.AUGMENTED_VIEWS, 3.0, 3.0, ScoreSpread(1, 0.0, 0.0, 0.0, 0.0))
OVERLAY = EncodedOverlay(b"overlay", OverlayFormat.JPEG, (1, 1))


def inspection(reference_id: ReferenceId = DEFAULT_REFERENCE_ID, *, anomalous: bool = True) -> Inspection:
    anomaly = AnomalyScore(0.7 if anomalous else 0.3, 7.0 if anomalous else 1.0, 3.0, anomalous, 1.5)
    return Inspection(
        reference_id=reference_id,
        reference_revision=REVISION,
        verdict=Verdict(DamageScore(1.0, anomaly_detected=False), anomaly, pixel_threshold=1.0),
        source_size_px=(8, 8),
        timing=Timing(total_ms=12.5),
    )


SENT = SentImage(b"image")


def inspected(
    reference_id: ReferenceId = DEFAULT_REFERENCE_ID,
    *,
    anomalous: bool = True,
    image: SentImage = SENT,
    calibration: Calibration = CALIBRATION,
    draw_thumbnail: Callable[[], bytes] = lambda: b"thumbnail",
    map_bytes: int = 0,
) -> ImageInspected:
    result = inspection(reference_id, anomalous=anomalous)
    return ImageInspected(ORIGIN, image, result, calibration, map_bytes, lambda _: OVERLAY, draw_thumbnail)


def failed(reference_id: ReferenceId = DEFAULT_REFERENCE_ID) -> InspectionFailed:
    return InspectionFailed(ORIGIN, reference_id, "UNDECODABLE_IMAGE", "The image is damaged.")
