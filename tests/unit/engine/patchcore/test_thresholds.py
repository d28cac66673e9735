"""Thresholds are computed from the scores of normal images, without keeping their maps."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fakes.engine import cards, ignore_progress
from numpy.typing import NDArray

from patchserve_server.domain.inspection import RawScores
from patchserve_server.domain.reference_options import ReferenceOptions, ScoringProfile
from patchserve_server.engine.detector import PatchCoreDetector
from patchserve_server.engine.patchcore.pipeline import Pipeline
from patchserve_server.engine.patchcore.thresholds import NormalScores

maps = list[weakref.ReferenceType[NDArray[Any]]]()


def alive() -> int:
    return sum(reference() is not None for reference in maps)


def test_only_one_map_is_in_memory_at_a_time() -> None:
    maps.clear()

    def scored() -> Iterator[RawScores]:
        for number in range(5):
            anomaly_map = np.full((4, 4), number, np.float32)
            anomaly_map[0, 0] = np.nan  # outside the region of interest
            maps.append(weakref.ref(anomaly_map))
            yield RawScores(number / 2, anomaly_map)
            assert alive() <= 2, "the one that was yielded, and its successor at most"

    normal = NormalScores.of(scored())
    assert normal.image_scores == (0, 0.5, 1, 1.5, 2)
    assert normal.peaks == (0, 1, 2, 3, 4)


@pytest.mark.parametrize("profile", [ScoringProfile.VERDICT, ScoringProfile.SUBSPACE])
def test_a_calibration_keeps_no_maps(
    detector: PatchCoreDetector, profile: ScoringProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps.clear()
    most = 0
    original = Pipeline.image_scores

    def watched(*args: Any, **kwargs: Any) -> list[RawScores]:
        nonlocal most
        scores = original(*args, **kwargs)
        maps.extend(weakref.ref(raw.anomaly_map) for raw in scores)
        most = max(most, alive())
        return scores

    monkeypatch.setattr(Pipeline, "image_scores", watched)
    detector.fit(cards(*range(8)), ReferenceOptions(profile=profile), ignore_progress)
    assert len(maps) >= 16
    assert most <= 4
