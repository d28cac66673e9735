"""Thresholds are computed from the scores of normal images, without keeping their maps."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
from fakes.engine import cards, ignore_progress
from numpy.typing import NDArray

from patchserve_server.domain.inspection import RawScores
from patchserve_server.domain.reference_options import ReferenceOptions, ScoringProfile
from patchserve_server.engine.detector import PatchCoreDetector
from patchserve_server.engine.patchcore.pipeline import Pipeline

maps = list[weakref.ReferenceType[NDArray[Any]]]()


def alive() -> int:
    return sum(reference() is not None for reference in maps)


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
