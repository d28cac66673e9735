"""The options of a reference: region of interest and search radius."""

from __future__ import annotations

import numpy as np
import pytest
from fakes.engine import MEMORY_BANK_PROFILES, Judged, cards, fit, ignore_progress, inspect
from fakes.references import model_content

from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.input_options import InputShape
from patchserve_server.domain.ports import Scorer
from patchserve_server.domain.reference_options import (
    CoresetOptions,
    ReferenceOptions,
    RegionOfInterest,
    ScoringProfile,
)
from patchserve_server.engine.detector import PatchCoreDetector
from patchserve_server.engine.patchcore.region_of_interest import build_roi_mask

LEFT_HALF: RegionOfInterest = (((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0)),)
CORNERS: RegionOfInterest = (
    ((0.0, 0.0), (0.25, 0.0), (0.25, 0.25), (0.0, 0.25)),
    ((0.75, 0.75), (1.0, 0.75), (1.0, 1.0), (0.75, 1.0)),
)


def noisy(inputs: ModelInputs, columns: slice) -> ModelInputs:
    changed = inputs.copy()
    noise = np.random.default_rng(9).integers(0, 256, changed[:, :, columns].shape, dtype=np.uint8)
    changed[:, :, columns] = noise
    return changed


def score(scorer: Scorer, inputs: ModelInputs) -> Judged:
    return inspect(scorer, inputs)[0]


def test_no_region_is_the_whole_image() -> None:
    assert build_roi_mask((), InputShape.square(), (14, 14)) is None


def test_a_region_is_drawn_to_the_pixel() -> None:
    found = build_roi_mask(LEFT_HALF, InputShape.square(), (14, 14))
    assert found is not None
    expected = np.zeros((224, 224), bool)
    expected[:, :112] = True
    assert np.count_nonzero(found.pixels != expected) <= 224  # the border itself may fall on either side
    np.testing.assert_array_equal(found.patches.reshape(14, 14), np.arange(14) < np.full((14, 1), 7))


def test_regions_add_up_where_they_overlap() -> None:
    apart = build_roi_mask(CORNERS, InputShape.square(), (14, 14))
    whole = build_roi_mask((*CORNERS, *LEFT_HALF, *LEFT_HALF), InputShape.square(), (14, 14))
    assert apart is not None
    assert whole is not None
    assert apart.pixels[10, 10]
    assert apart.pixels[210, 210]
    assert not apart.pixels[10, 210]
    assert whole.pixels[100, 50]
    assert (whole.pixels >= apart.pixels).all()


@pytest.mark.parametrize(
    "polygon",
    [
        ((0.5, 0.5),) * 3,
        ((0.1, 0.5), (0.9, 0.5), (0.5, 0.501)),
        ((0.999, 0.0), (1.0, 0.0), (1.0, 1.0)),
        ((1.0, 1.0),) * 3,
        ((0.0, 0.0),) * 3,
    ],
)
def test_a_sliver_still_has_a_patch(polygon: tuple[tuple[float, float], ...]) -> None:
    found = build_roi_mask((polygon,), InputShape.square(), (14, 14))
    assert found is not None
    assert found.pixels.any()
    assert found.patches.any()


@pytest.mark.parametrize("profile", ScoringProfile)
def test_what_lies_outside_of_the_region_changes_nothing(detector: PatchCoreDetector, profile: ScoringProfile) -> None:
    options = ReferenceOptions(profile, region_of_interest=LEFT_HALF)
    inputs, outside, inside = cards(1, 2, 3), slice(114, None), slice(40, 80)
    scorer = fit(detector, inputs, options)
    altered = fit(detector, noisy(inputs, outside), options)
    assert model_content(altered.model) == model_content(scorer.model)
    plain, changed = score(scorer, cards(4)), score(scorer, noisy(cards(4), outside))
    assert changed.anomaly == plain.anomaly
    assert changed.damage == plain.damage
    np.testing.assert_array_equal(changed.anomaly_map, plain.anomaly_map)
    assert not plain.anomaly.is_anomalous
    damaged = score(scorer, noisy(cards(4), inside))
    assert damaged.anomaly.is_anomalous
    assert damaged.anomaly.anomalous_area_percentage > plain.anomaly.anomalous_area_percentage


def test_the_map_says_nothing_about_the_outside(detector: PatchCoreDetector) -> None:
    scorer = fit(detector, cards(1), ReferenceOptions(region_of_interest=LEFT_HALF))
    anomaly_map = score(scorer, cards(2)).anomaly_map
    assert np.isnan(anomaly_map[:, 114:]).all()
    assert np.isfinite(anomaly_map[:, :111]).all()


def test_extending_keeps_region_and_radius(detector: PatchCoreDetector) -> None:
    options = ReferenceOptions(search_radius=0.2, region_of_interest=LEFT_HALF)
    together = fit(detector, cards(1, 2, 3), options)
    grown = detector.extend(fit(detector, cards(1, 2), options), cards(3), ignore_progress)
    assert grown.model.options == options
    np.testing.assert_array_equal(grown.model.memory_bank.patches, together.model.memory_bank.patches)
    np.testing.assert_array_equal(grown.model.bank.inputs, together.model.bank.inputs)
    assert grown.model.calibration == together.model.calibration


def turned(inputs: ModelInputs) -> ModelInputs:
    return inputs[:, ::-1, ::-1].copy()


@pytest.mark.parametrize("profile", MEMORY_BANK_PROFILES)
def test_only_with_a_radius_it_matters_where_things_are(detector: PatchCoreDetector, profile: ScoringProfile) -> None:
    """A card upside down has only patches that the reference knows, all in the wrong place."""
    inputs = np.concatenate([cards(1, 2, 3, 4), turned(cards(1, 2, 3, 4))])
    both_ways = fit(detector, inputs, ReferenceOptions(profile))
    assert not score(both_ways, turned(cards(1))).anomaly.is_anomalous
    one_way = fit(detector, cards(1, 2, 3, 4), ReferenceOptions(profile, search_radius=0.1))
    anywhere = fit(detector, cards(1, 2, 3, 4), ReferenceOptions(profile))
    image = turned(cards(5))
    near, far = (score(scorer, image).anomaly.score for scorer in (one_way, anywhere))
    assert near > far
    assert score(one_way, image).anomaly.is_anomalous
    assert score(one_way, cards(5)).anomaly.score < near


def test_a_radius_of_the_whole_image_is_none(detector: PatchCoreDetector) -> None:
    everywhere, whole = (
        fit(detector, cards(1, 2, 3), ReferenceOptions(search_radius=radius)) for radius in (None, 1.0)
    )
    assert whole.model.calibration == everywhere.model.calibration
    one, other = (score(scorer, cards(4)) for scorer in (everywhere, whole))
    np.testing.assert_array_equal(one.anomaly_map, other.anomaly_map)


@pytest.mark.parametrize("profile", MEMORY_BANK_PROFILES)
def test_where_a_coreset_left_no_row_near_all_are_searched(
    detector: PatchCoreDetector, profile: ScoringProfile
) -> None:
    options = ReferenceOptions(profile, CoresetOptions(max_patches=16), search_radius=0.05)
    scorer = fit(detector, cards(1, 2, 3), options)
    found = score(scorer, cards(4))
    assert np.isfinite(found.anomaly_map).all()
    assert np.isfinite(found.anomaly.raw_score)
