"""`patchserve scan` in a process of its own, with a fake detector and small parts. Run it as a program."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from fakes.detector import FakeDetector, FakeScorer
from patchserve_server.bootstrap import composition
from patchserve_server.config import Settings
from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.inspection import RawScores
from patchserve_server.domain.ports import Detector, Scorer, ScoringTimes
from patchserve_server.domain.reference import ReferenceModel
from patchserve_server.scan import plan

IMAGES_PER_PART = 4
SCORE_S = 0.01
PIDS = "SCAN_PIDS"


class SlowScorer(FakeScorer):
    """Takes as long for an image as a network might."""

    def score(self, inputs: ModelInputs) -> tuple[Sequence[RawScores], ScoringTimes]:
        time.sleep(SCORE_S * len(inputs))
        return super().score(inputs)


class SlowDetector(FakeDetector):
    """Opens slow scorers."""

    def open(self, model: ReferenceModel) -> Scorer:
        super().open(model)
        return SlowScorer(model)


def open_slow_detector(settings: Settings) -> Detector:
    """A slow detector. Its process leaves its id in the folder that PIDS names."""
    if folder := os.environ.get(PIDS):
        (Path(folder) / str(os.getpid())).touch()
    return SlowDetector()


if __name__ == "__main__":
    composition.open_detector = open_slow_detector
    plan._SMALLEST_PART = IMAGES_PER_PART  # type: ignore[misc]
    from patchserve_command import main

    sys.argv[0] = "patchserve"
    main()
