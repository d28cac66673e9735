"""Resize, heat and regions."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from fakes.images import blob, card
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torchvision import transforms

from patchserve_server.domain.inspection import HeatmapScale
from patchserve_server.imaging import find_regions, heat_levels, to_model_input

THRESHOLD = 2.0
maps = arrays.arrays(np.float32, (16, 16), elements=st.floats(0, 10, width=32))
interests = arrays.arrays(np.bool_, (16, 16)).filter(np.any)


def test_the_model_input_is_what_torchvision_makes_of_it() -> None:
    image = card(3)
    expected = np.asarray(transforms.Resize((224, 224))(image))
    assert np.array_equal(to_model_input(image, 224), expected)


def test_relative_heat_spans_all_levels_and_is_truncated() -> None:
    levels = heat_levels(np.array([[1, 2], [2.999, 3]], np.float32), HeatmapScale.RELATIVE, THRESHOLD)
    assert levels.tolist() == [[0, 127], [254, 255]]


def test_a_flat_map_has_no_heat() -> None:
    assert (heat_levels(np.full((4, 4), 3, np.float32), HeatmapScale.RELATIVE, THRESHOLD) == 0).all()


@given(maps, st.just(0.0) | st.floats(1e-3, 10))
def test_calibrated_heat_is_monotone_and_splits_at_the_threshold(anomaly_map: np.ndarray, threshold: float) -> None:
    levels = heat_levels(anomaly_map, HeatmapScale.CALIBRATED, threshold).ravel()
    values = anomaly_map.ravel()
    order = np.argsort(values)
    assert (np.diff(levels[order].astype(int)) >= 0).all()
    assert (levels[values <= threshold] <= 150).all()
    assert (levels[values >= max(2.001 * threshold, 1e-6)] >= 254).all()


def test_a_region_is_where_the_heat_is() -> None:
    (region,) = find_regions(blob(), THRESHOLD, (1000, 500), 16)
    box = region.bounding_box
    assert box.x_px < 250 < box.x_px + box.width_px
    assert box.y_px < 250 < box.y_px + box.height_px
    assert box.x_px + box.width_px / 2 == pytest.approx(250, abs=6)
    assert region.peak_score == pytest.approx(6 / 8, abs=0.01)
    assert region.area_percentage == pytest.approx(100 * region.area_px / 500_000)
    outline = np.array(region.polygon, np.int32)
    assert cv2.contourArea(outline.astype(np.float32), oriented=True) > 0, "clockwise on screen"
    assert cv2.pointPolygonTest(outline[:, None], (250, 250), measureDist=False) > 0


@settings(deadline=None)
@given(maps, st.floats(0, 10), st.integers(1, 50), st.integers(1, 50), st.integers(1, 20))
def test_regions_cover_what_is_over_the_threshold_and_nothing_else(
    anomaly_map: np.ndarray, threshold: float, width: int, height: int, most: int
) -> None:
    every = find_regions(anomaly_map, threshold, (width, height), 1000)
    over = int((anomaly_map > np.float32(threshold)).sum())
    assert sum(region.area_percentage for region in every) == pytest.approx(100 * over / 256)
    for region in every:
        box = region.bounding_box
        assert box.width_px >= 1
        assert box.height_px >= 1
        assert 0 <= box.x_px <= width - box.width_px
        assert 0 <= box.y_px <= height - box.height_px
        assert all(0 <= x_px < width and 0 <= y_px < height for x_px, y_px in region.polygon)
        assert 0.5 <= region.peak_score <= 1
    peaks = [region.peak_score for region in every]
    assert peaks == sorted(peaks, reverse=True)
    assert find_regions(anomaly_map, threshold, (width, height), most) == every[:most]


@given(maps, interests, st.sampled_from(HeatmapScale), st.just(0.0) | st.floats(1e-3, 10))
def test_outside_of_a_region_of_interest_all_is_cold_and_inside_as_ever(
    anomaly_map: np.ndarray, interest: np.ndarray, scale: HeatmapScale, threshold: float
) -> None:
    levels = heat_levels(np.where(interest, anomaly_map, np.nan), scale, threshold)
    assert levels.dtype == np.uint8
    assert (levels[~interest] == 0).all()
    inside = anomaly_map[interest][None]  # (1, pixels)
    np.testing.assert_array_equal(levels[interest], heat_levels(inside, scale, threshold)[0])


@settings(deadline=None)
@given(maps, interests, st.floats(0, 10), st.integers(0, 20))
def test_outside_of_a_region_of_interest_there_are_no_regions(
    anomaly_map: np.ndarray, interest: np.ndarray, threshold: float, most: int
) -> None:
    found = find_regions(np.where(interest, anomaly_map, np.nan), threshold, (32, 48), most)
    assert found == find_regions(np.where(interest, anomaly_map, 0), threshold, (32, 48), most)
