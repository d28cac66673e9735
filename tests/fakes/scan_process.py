"""`patchserve scan` in a process of its own, with a fake detector and small parts. Run it as a program."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from fakes.detector import FakeDetector, FakeScorer
from patchserve_server.bootstrap import composition
from patchserve_server.config import Settings
from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.inspection import RawScores
from patchserve_server.domain.ports import ScoringTimes
from patchserve_server.scan import plan

IMAGES_PER_PART = 4
_SCORE_S = 0.01


def open_fake_detector(_: Settings) -> FakeDetector:
    return FakeDetector()


def _slowly(self: FakeScorer, inputs: ModelInputs) -> tuple[Sequence[RawScores], ScoringTimes]:
    time.sleep(_SCORE_S * len(inputs))
    return _score(self, inputs)


_score = FakeScorer.score

if __name__ == "__main__":
    composition.open_detector = open_fake_detector
    plan._SMALLEST_PART = IMAGES_PER_PART
    FakeScorer.score = _slowly  # type: ignore[method-assign]
    from patchserve_command import main

    sys.argv[0] = "patchserve"
    main()
