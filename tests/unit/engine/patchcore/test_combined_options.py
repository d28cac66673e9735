"""Options of one reference that meet in the engine."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
from fakes.engine import cards, fit, inspect

from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.input_options import AspectRatio, InputOptions
from patchserve_server.domain.reference_options import ReferenceOptions, ReferenceViews, ScoringProfile
from patchserve_server.engine.detector import PatchCoreDetector
from patchserve_server.engine.patchcore.scorer import PatchCoreScorer

LEFT_HALF = (((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0)),)
WIDE_PX = (320, 224)  # (width, height)


def wide_cards(*seeds: int) -> ModelInputs:
    return np.stack([cv2.resize(card, WIDE_PX).astype(np.uint8) for card in cards(*seeds)])


def dotted(inputs: ModelInputs, center_px: tuple[int, int]) -> ModelInputs:
    changed = inputs.copy()
    for image in changed:
        cv2.circle(image, center_px, 14, (10, 10, 10), -1)
    return changed


@pytest.mark.parametrize("profile", ScoringProfile)
def test_a_region_of_interest_counts_in_inputs_that_are_no_squares(
    detector: PatchCoreDetector, profile: ScoringProfile
) -> None:
    keep = InputOptions(longer_side_px=320, aspect=AspectRatio.KEEP)
    options = ReferenceOptions(profile=profile, input=keep, region_of_interest=LEFT_HALF)
    scorer = fit(detector, wide_cards(*range(6)), options)
    intact = wide_cards(3)
    inside, outside, unchanged = inspect(
        scorer, np.concatenate((dotted(intact, (80, 112)), dotted(intact, (280, 112)), intact))
    )
    assert inside.anomaly_map.shape == (224, 320)
    assert np.isnan(inside.anomaly_map[:, 161:]).all()
    assert np.isfinite(inside.anomaly_map[:, :159]).all()
    assert inside.anomaly.is_anomalous
    assert outside.anomaly == unchanged.anomaly
    row, column = np.unravel_index(np.nanargmax(inside.anomaly_map), inside.anomaly_map.shape)
    assert abs(row - 112) < 32
    assert abs(column - 80) < 32


@pytest.mark.parametrize("views", [ReferenceViews.NONE, ReferenceViews.ALL])
def test_verdict_takes_approximate_search(detector: PatchCoreDetector, views: ReferenceViews) -> None:
    exact = ReferenceOptions(profile=ScoringProfile.VERDICT, views=views)
    inputs, queries = cards(*range(6)), np.concatenate((cards(3, 9), cards(9, scratched=True)))
    scorer = fit(detector, inputs, dataclasses.replace(exact, approximate_search=True))
    found = inspect(scorer, queries)
    expected = inspect(fit(detector, inputs, exact), queries)
    assert [one.anomaly.is_anomalous for one in found] == [one.anomaly.is_anomalous for one in expected]
    np.testing.assert_allclose(
        [one.anomaly.raw_score for one in found], [one.anomaly.raw_score for one in expected], rtol=0.1
    )
    assert not found[0].anomaly.is_anomalous, "an image of the reference"
    reopened = detector.open(scorer.model)
    assert isinstance(reopened, PatchCoreScorer)
    assert [one.anomaly.raw_score for one in inspect(reopened, queries)] == [one.anomaly.raw_score for one in found]
