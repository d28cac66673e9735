"""The thresholds of a reference, from the raw scores of its own images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from patchserve_server.domain.false_alarm_rate import DEFAULT_FALSE_ALARM_RATE
from patchserve_server.domain.inspection import RawScores
from patchserve_server.domain.reference import Calibration, CalibrationMethod, ScoreSpread
from patchserve_server.engine.patchcore.prediction_limit import ScorePrediction


def leave_one_out_thresholds(
    normal: Sequence[RawScores], own_highest: float, smallest: float, rate: float | None
) -> Calibration:
    """Thresholds that other undamaged items exceed at a rate (docs/adr/0016).

    Args:
        normal: each image against the rows of all the others, two or more.
        own_highest: the highest image score of the images against the whole bank, which is no false alarm.
        smallest: the lower limit of thresholds.
        rate: the share of undamaged items that may be false alarms; None: the default.
    """
    rate = DEFAULT_FALSE_ALARM_RATE if rate is None else rate
    scores, peaks = _scores_and_peaks(normal)
    prediction = ScorePrediction.of(scores)
    image_threshold = max(prediction.limit_of(rate), own_highest, smallest)
    return Calibration(
        CalibrationMethod.LEAVE_ONE_OUT,
        image_threshold,
        max(ScorePrediction.of(peaks).limit_of(rate), smallest),
        ScoreSpread.of(scores),
        false_alarm_rate=prediction.rate_above(image_threshold),
        false_alarm_rate_upper=prediction.rate_bound(image_threshold),
    )


def augmented_view_thresholds(normal: Sequence[RawScores], smallest: float) -> Calibration:
    """Thresholds that no view of the reference images exceeds. They tell nothing about other items, and so no rate."""
    scores, peaks = _scores_and_peaks(normal)
    spread = ScoreSpread.of(scores)
    return Calibration(CalibrationMethod.AUGMENTED_VIEWS, max(*scores, smallest), max(*peaks, smallest), spread)


def _scores_and_peaks(normal: Sequence[RawScores]) -> tuple[list[float], list[float]]:
    """The image scores, and the peaks of the maps."""
    return [raw.image_score for raw in normal], [float(np.nanmax(raw.anomaly_map)) for raw in normal]
