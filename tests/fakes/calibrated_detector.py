"""A fake detector whose calibrations have the scores of different items, as those of real ones do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fakes.detector import FakeDetector, FakeScorer
from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.ports import Progress, Scorer
from patchserve_server.domain.reference import Calibration, CalibrationMethod, ScoreSpread
from patchserve_server.domain.reference_options import ReferenceOptions


class CalibratedDetector(FakeDetector):
    """With three or more images: the distance of each one from the mean of all, in gray levels."""

    def fit(self, inputs: ModelInputs, options: ReferenceOptions, progress: Progress) -> Scorer:
        scorer = super().fit(inputs, options, progress)
        if len(inputs) < 3 or not isinstance(scorer, FakeScorer):
            return scorer
        means = inputs.mean(axis=(1, 2, 3), dtype=np.float64)  # (N,)
        spread = ScoreSpread.of(np.abs(means - means.mean()).tolist())
        calibration = Calibration(CalibrationMethod.LEAVE_ONE_OUT, 20.0, 20.0, spread)
        return replace(scorer, model=replace(scorer.model, calibration=calibration))
