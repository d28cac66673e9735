"""Helpers for tests of the engine: card images as model inputs, and scores with their verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from fakes.images import card
from patchserve_server.domain.images import AnomalyMap, ModelInputs
from patchserve_server.domain.inspection import AnomalyScore, DamageScore
from patchserve_server.domain.load_progress import LoadStage
from patchserve_server.domain.ports import Detector, Scorer
from patchserve_server.domain.reference_options import ReferenceOptions, ScoringProfile
from patchserve_server.domain.verdict import judge

INPUT_SIZE_PX = 224
MEMORY_BANK_PROFILES = [profile for profile in ScoringProfile if profile is not ScoringProfile.SUBSPACE]
"""Only they take a coreset, a search radius or approximate search."""


@dataclass(frozen=True, eq=False)
class Judged:
    """The raw scores of one image, and their verdict."""

    anomaly_map: AnomalyMap
    damage: DamageScore
    anomaly: AnomalyScore


def ignore_progress(_stage: LoadStage, _done: int, _total: int) -> None:
    pass


def cards(*seeds: int, scratched: bool = False) -> ModelInputs:
    """Drawn cards as model inputs (N, S, S, 3)."""
    size_px = (INPUT_SIZE_PX, INPUT_SIZE_PX)
    drawn = [card(seed, scratched=scratched).resize(size_px, Image.Resampling.BILINEAR) for seed in seeds]
    return np.stack([np.asarray(image) for image in drawn])


def fit(detector: Detector, inputs: ModelInputs, options: ReferenceOptions | None = None) -> Scorer:
    return detector.fit(inputs, options or ReferenceOptions(), ignore_progress)


def inspect(scorer: Scorer, inputs: ModelInputs) -> Sequence[Judged]:
    """The scores of each input (B, S, S, 3), judged by the scorer's own calibration."""
    raw_scores, _ = scorer.score(inputs)
    verdicts = [judge(raw, scorer.model.calibration) for raw in raw_scores]
    return [
        Judged(raw.anomaly_map, verdict.damage, verdict.anomaly)
        for raw, verdict in zip(raw_scores, verdicts, strict=True)
    ]
