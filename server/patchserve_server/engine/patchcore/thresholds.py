"""The thresholds of a reference, from the raw scores of its own images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from patchserve_server.domain.false_alarm_rate import DEFAULT_FALSE_ALARM_RATE
from patchserve_server.domain.inspection import RawScores
from patchserve_server.domain.reference import Calibration, CalibrationMethod, ScoreSpread
from patchserve_server.engine.patchcore.prediction_limit import ScorePrediction


@dataclass(frozen=True, slots=True)
class NormalScore:
    """What a threshold needs of the raw scores of a normal image. A map is not kept: it may have 4 MiB."""

    image_score: float
    peak: float  # of the map

    @classmethod
    def of(cls, raw: RawScores) -> Self:
        return cls(raw.image_score, float(np.nanmax(raw.anomaly_map)))


def leave_one_out_thresholds(
    normal: Sequence[NormalScore], own_highest: float, smallest: float, rate: float | None
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
    limit = prediction.limit_of(rate)
    image_threshold = max(limit, own_highest, smallest)
    # The rate at a limit computed for it differs by rounding from what was asked for.
    expected = rate if image_threshold == limit else prediction.rate_above(image_threshold)
    return Calibration(
        CalibrationMethod.LEAVE_ONE_OUT,
        image_threshold,
        max(ScorePrediction.of(peaks).limit_of(rate), smallest),
        ScoreSpread.of(scores),
        false_alarm_rate=expected,
        false_alarm_rate_upper=max(expected, prediction.rate_bound(image_threshold)),
    )


def augmented_view_thresholds(normal: Sequence[NormalScore], smallest: float) -> Calibration:
    """Thresholds that no view of the reference images exceeds. They tell nothing about other items, and so no rate."""
    scores, peaks = _scores_and_peaks(normal)
    spread = ScoreSpread.of(scores)
    return Calibration(CalibrationMethod.AUGMENTED_VIEWS, max(*scores, smallest), max(*peaks, smallest), spread)


def _scores_and_peaks(normal: Sequence[NormalScore]) -> tuple[list[float], list[float]]:
    return [one.image_score for one in normal], [one.peak for one in normal]
