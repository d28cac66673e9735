"""A child process of a server with several fronts whose engine has a FakeDetector. Run as a program.

`score` takes as long as the variable FAKE_SCORE_S says. It decodes on FAKE_DECODE.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fakes.calibrated_detector import CalibratedDetector
from patchserve_server.bootstrap import composition
from patchserve_server.bootstrap.processes import child, keeper
from patchserve_server.config import Settings
from patchserve_server.domain.ports import Detector, ScoredPart, Scorer, ScorerInputs
from patchserve_server.fronts import link


class SlowDetector(CalibratedDetector):
    def score_batch(self, batch: Sequence[tuple[Scorer, ScorerInputs]]) -> Iterator[ScoredPart]:
        time.sleep(float(os.environ.get("FAKE_SCORE_S", "0")))
        return super().score_batch(batch)


def open_slow_detector(_settings: Settings) -> Detector:
    return SlowDetector(decode=os.environ.get("FAKE_DECODE", "cpu"))


def answer_within(bound_s: float) -> None:
    """How long a process may be silent."""
    for module in (keeper, link):
        module.WATCH_S = bound_s / module.MISSES  # type: ignore[attr-defined]


if __name__ == "__main__":
    if bound := os.environ.get("FAKE_SILENCE_S"):
        answer_within(float(bound))
    composition.open_detector = open_slow_detector  # type: ignore[assignment] # its parameter has another name
    child.main()
