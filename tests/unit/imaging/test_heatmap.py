"""Heat levels of anomaly maps, on both scales and outside a region of interest."""

from __future__ import annotations

import numpy as np
from fakes.anomaly_maps import anomaly_maps, roi_masks
from hypothesis import given
from hypothesis import strategies as st

from patchserve_server.domain.inspection import HeatmapScale
from patchserve_server.imaging import heat_levels

THRESHOLD = 2.0
thresholds = st.just(0.0) | st.floats(1e-3, 10)


def test_relative_heat_spans_all_levels_and_is_truncated() -> None:
    levels = heat_levels(np.array([[1, 2], [2.999, 3]], np.float32), HeatmapScale.RELATIVE, THRESHOLD)
    assert levels.tolist() == [[0, 127], [254, 255]]


def test_a_flat_map_is_cold_on_the_relative_scale() -> None:
    assert (heat_levels(np.full((4, 4), 3, np.float32), HeatmapScale.RELATIVE, THRESHOLD) == 0).all()


@given(anomaly_maps, thresholds)
def test_calibrated_heat_rises_with_the_score_and_turns_warm_at_the_threshold(
    anomaly_map: np.ndarray, threshold: float
) -> None:
    levels = heat_levels(anomaly_map, HeatmapScale.CALIBRATED, threshold).ravel()
    scores = anomaly_map.ravel()
    order = np.argsort(scores)
    assert (np.diff(levels[order].astype(int)) >= 0).all()
    assert (levels[scores <= threshold] <= 150).all()
    assert (levels[scores >= max(2.001 * threshold, 1e-6)] >= 254).all()


@given(anomaly_maps, roi_masks, st.sampled_from(HeatmapScale), thresholds)
def test_only_the_region_of_interest_has_heat_and_the_rest_does_not_change_it(
    anomaly_map: np.ndarray, roi_mask: np.ndarray, scale: HeatmapScale, threshold: float
) -> None:
    levels = heat_levels(np.where(roi_mask, anomaly_map, np.nan), scale, threshold)
    assert levels.dtype == np.uint8
    assert (levels[~roi_mask] == 0).all()
    inside = anomaly_map[roi_mask][None]  # (1, pixels)
    np.testing.assert_array_equal(levels[roi_mask], heat_levels(inside, scale, threshold)[0])
