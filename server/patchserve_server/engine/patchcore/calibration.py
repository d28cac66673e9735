"""Calibration: the thresholds of a bank, from its reference images alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

import numpy as np
from torch import Tensor

from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.inspection import RawScores
from patchserve_server.domain.load_progress import LoadStage
from patchserve_server.domain.ports import Progress
from patchserve_server.domain.reference import Calibration, CalibrationMethod, ScoreSpread
from patchserve_server.engine.patchcore.augmented_views import AugmentedViews
from patchserve_server.engine.patchcore.calibration_bank import ROUNDING, CalibrationBank, first_equal_images
from patchserve_server.engine.patchcore.leave_one_out import MIN_IMAGES, LeaveOneOut
from patchserve_server.engine.patchcore.pipeline import Pipeline
from patchserve_server.engine.search.bank_index import BankIndex

_NORMAL_SHARE = 0.91
_DEVIATIONS = 1.5


@dataclass(frozen=True, slots=True, eq=False)
class CalibratedBank:
    """A bank with its thresholds."""

    index: BankIndex  # with the spacing of its rows, if the profile uses it
    calibration: Calibration


def calibrate(
    pipeline: Pipeline, inputs: ModelInputs, vectors: Tensor, selected: Tensor, progress: Progress
) -> CalibratedBank:
    """Compute per-row spacing and both thresholds. No reference image scores above the image threshold.

    With three or more distinct images, each is scored against the rows of all the others. With fewer, or if the
    coreset has too few rows of the others, augmented views are scored against the whole bank.

    Args:
        pipeline: the pipeline that computed the vectors.
        inputs: (N, H, W, 3), masked.
        vectors: (N, P, D) float32, of all inputs.
        selected: (K,) int64, the rows of `vectors.flatten(0, 1)` that the bank keeps, ascending.
        progress: called with the number of scored images.
    """
    first_equal = first_equal_images(inputs)
    progress(LoadStage.CALIBRATE, 0, len(set(first_equal.tolist())))  # indexing a large bank takes seconds
    bank = CalibrationBank.build(pipeline, first_equal, vectors, selected)
    if len(bank.images) >= MIN_IMAGES:
        leave_one_out = LeaveOneOut.search(pipeline, bank, progress)
        if not pipeline.is_paper:
            leave_one_out = leave_one_out.with_spacing()
        bank, scores = leave_one_out.bank, leave_one_out.raw_scores()
        if all(math.isfinite(raw.image_score) for raw in scores):
            calibration = thresholds(CalibrationMethod.LEAVE_ONE_OUT, scores, upper_limit, bank.smallest_distance)
            highest = max(raw.image_score for raw in leave_one_out.pristine_scores()) * (1 + ROUNDING)
            image_threshold = max(calibration.image_threshold, highest)
            return CalibratedBank(bank.index, replace(calibration, image_threshold=image_threshold))
    scores = AugmentedViews(pipeline, bank.images, bank.index, inputs).raw_scores(progress)
    calibration = thresholds(CalibrationMethod.AUGMENTED_VIEWS, scores, max, bank.smallest_distance)
    return CalibratedBank(bank.index, calibration)


def upper_limit(values: Sequence[float]) -> float:
    """A limit that another normal value rarely exceeds, estimated from two or more leave-one-out values.

    With 11 or more values it is the conformal quantile, valid for any distribution: the value of rank
    ceil(0.91 (n + 1)). Fewer values have no such rank. The limit is then their mean plus 1.5 standard deviations, about
    the same share of a normal distribution. Both numbers come from measurements (docs/accuracy.md): a higher limit
    would miss more defects than it avoids false alarms.
    """
    rank = math.ceil(_NORMAL_SHARE * (len(values) + 1))
    return sorted(values)[rank - 1] if rank <= len(values) else fmean(values) + _DEVIATIONS * stdev(values)


def thresholds(
    method: CalibrationMethod, normal: Sequence[RawScores], limit: Callable[[Sequence[float]], float], smallest: float
) -> Calibration:
    """The image threshold from the normal image scores, the patch threshold from the peaks of the normal maps."""
    scores = [raw.image_score for raw in normal]
    peaks = [float(np.nanmax(raw.anomaly_map)) for raw in normal]
    spread = ScoreSpread.of(scores)
    return Calibration(method, max(limit(scores), smallest), max(limit(peaks), smallest), spread)
