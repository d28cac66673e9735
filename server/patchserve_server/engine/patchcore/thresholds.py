"""The thresholds of a reference, from the raw scores of its own images."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np

from patchserve_server.domain.false_alarm_rate import DEFAULT_FALSE_ALARM_RATE
from patchserve_server.domain.inspection import RawScores
from patchserve_server.domain.reference import Calibration, CalibrationMethod, ScoreSpread
from patchserve_server.engine.patchcore.prediction_limit import ScorePrediction


@dataclass(frozen=True, slots=True)
class NormalScores:
    """What thresholds need of the raw scores of normal images. Their maps, 4 MB each of large images, are not kept."""

    image_scores: tuple[float, ...]
    peaks: tuple[float, ...]  # of the maps

    @classmethod
    def of(cls, normal: Iterable[RawScores]) -> Self:
        """Those of one or more images, of which only one is in memory at a time if the iterable makes them."""
        image_scores, peaks = zip(
            *((raw.image_score, float(np.nanmax(raw.anomaly_map))) for raw in normal), strict=True
        )
        return cls(image_scores, peaks)

    @property
    def are_finite(self) -> bool:
        return all(map(math.isfinite, self.image_scores))


def leave_one_out_thresholds(
    normal: NormalScores, own_highest: float, smallest: float, rate: float | None
) -> Calibration:
    """Thresholds that other undamaged items exceed at a rate (docs/adr/0016).

    Args:
        normal: each image against the rows of all the others, two or more.
        own_highest: the highest image score of the images against the whole bank, which is no false alarm.
        smallest: the lower limit of thresholds.
        rate: the share of undamaged items that may be false alarms; None: the default.
    """
    rate = DEFAULT_FALSE_ALARM_RATE if rate is None else rate
    prediction = ScorePrediction.of(normal.image_scores)
    image_threshold = max(prediction.limit_of(rate), own_highest, smallest)
    return Calibration(
        CalibrationMethod.LEAVE_ONE_OUT,
        image_threshold,
        max(ScorePrediction.of(normal.peaks).limit_of(rate), smallest),
        ScoreSpread.of(normal.image_scores),
        false_alarm_rate=prediction.rate_above(image_threshold),
        false_alarm_rate_upper=prediction.rate_bound(image_threshold),
    )


def augmented_view_thresholds(normal: NormalScores, smallest: float) -> Calibration:
    """Thresholds that no view of the reference images exceeds. They tell nothing about other items, and so no rate."""
    scores, peaks = normal.image_scores, normal.peaks
    spread = ScoreSpread.of(scores)
    return Calibration(CalibrationMethod.AUGMENTED_VIEWS, max(*scores, smallest), max(*peaks, smallest), spread)
