"""Calibration: the thresholds of a bank, from its reference images alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.load_progress import LoadStage
from patchserve_server.domain.ports import Progress
from patchserve_server.domain.reference import Calibration
from patchserve_server.engine.patchcore.augmented_views import AugmentedViews
from patchserve_server.engine.patchcore.calibration_bank import CalibrationBank, first_equal_images
from patchserve_server.engine.patchcore.leave_one_out import MIN_IMAGES, LeaveOneOut
from patchserve_server.engine.patchcore.pipeline import Pipeline
from patchserve_server.engine.patchcore.thresholds import augmented_view_thresholds, leave_one_out_thresholds
from patchserve_server.engine.search.bank_index import BankIndex


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
        vectors: (N * V, P, D) float32, of all V views of each input, the input itself first.
        selected: (K,) int64, the rows of `vectors.flatten(0, 1)` that the bank keeps, ascending.
        progress: called with the number of scored images.
    """
    first_equal = first_equal_images(inputs)
    progress(LoadStage.CALIBRATE, 0, len(set(first_equal.tolist())))  # indexing a large bank takes seconds
    bank = CalibrationBank.build(pipeline, first_equal, vectors, selected)
    if len(bank.images) >= MIN_IMAGES:
        leave_one_out = LeaveOneOut.search(pipeline, bank, progress).with_best_spacing()
        bank, scores = leave_one_out.bank, leave_one_out.normal_scores()
        if all(math.isfinite(normal.image_score) for normal in scores):
            highest = max(leave_one_out.pristine_scores()) * (1 + bank.rounding)
            smallest = bank.smallest_distance
            calibration = leave_one_out_thresholds(scores, highest, smallest, pipeline.options.false_alarm_rate)
            return CalibratedBank(bank.index, calibration)
    scores = AugmentedViews(pipeline, [at // bank.views for at in bank.images], bank.index, inputs).scores(progress)
    return CalibratedBank(bank.index, augmented_view_thresholds(scores, bank.smallest_distance))
