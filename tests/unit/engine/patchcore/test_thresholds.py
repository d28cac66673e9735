"""Thresholds are computed from the scores of normal images, without keeping their maps."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
from fakes.engine import cards, ignore_progress
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from patchserve_server.domain.false_alarm_rate import DEFAULT_FALSE_ALARM_RATE
from patchserve_server.domain.inspection import RawScores
from patchserve_server.domain.reference_options import ReferenceOptions, ScoringProfile
from patchserve_server.engine.detector import PatchCoreDetector
from patchserve_server.engine.patchcore.pipeline import Pipeline
from patchserve_server.engine.patchcore.thresholds import NormalScore, leave_one_out_thresholds

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
    assert len(maps) == 8  # one for each image: what needs an image score only draws no map
    assert most <= 2


@given(
    st.lists(st.floats(1, 2, allow_subnormal=False), min_size=3, max_size=20),
    st.integers(1, 500).map(lambda thousandths: thousandths / 1000),
)
@settings(max_examples=50)
def test_the_rate_is_exactly_the_requested_one_unless_own_images_need_a_higher_threshold(
    scores: list[float], rate: float
) -> None:
    normal = [NormalScore(score, score) for score in scores]
    requested = leave_one_out_thresholds(normal, 0.0, 0.0, rate)
    assert requested.false_alarm_rate == rate
    higher = leave_one_out_thresholds(normal, requested.image_threshold + 1, 0.0, rate)
    assert higher.false_alarm_rate is not None
    assert higher.false_alarm_rate < rate


def test_the_default_rate_is_said_as_it_is() -> None:
    calibration = leave_one_out_thresholds([NormalScore(score, score) for score in (1.0, 1.1, 1.3)], 0.0, 0.0, None)
    assert calibration.false_alarm_rate == DEFAULT_FALSE_ALARM_RATE
