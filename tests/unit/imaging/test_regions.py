"""Regions: where they are, and that they cover exactly what is above the threshold."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from fakes.anomaly_maps import anomaly_maps, hot_spot, roi_masks, verdict_at
from hypothesis import given, settings
from hypothesis import strategies as st

from patchserve_server.domain.inspection import HeatmapScale, RawScores
from patchserve_server.domain.reference import Calibration, CalibrationMethod, ScoreSpread
from patchserve_server.domain.verdict import judge
from patchserve_server.imaging import find_regions, heat_levels

THRESHOLD = 2.0


def calibrated(threshold: float) -> Calibration:
    return Calibration(CalibrationMethod.LEAVE_ONE_OUT, threshold, 1.0, ScoreSpread(1, 0.0, 0.0, 0.0, 0.0))


def test_a_region_is_where_the_anomaly_is() -> None:
    (region,) = find_regions(hot_spot(), verdict_at(THRESHOLD), (1000, 500), 16)
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
@given(anomaly_maps, st.floats(0, 10), st.integers(1, 50), st.integers(1, 50), st.integers(1, 20))
def test_regions_cover_exactly_what_is_above_the_threshold(
    anomaly_map: np.ndarray, threshold: float, width: int, height: int, max_regions: int
) -> None:
    regions = find_regions(anomaly_map, verdict_at(threshold), (width, height), 1000)
    pixels_above = int((anomaly_map > np.float32(threshold)).sum())
    assert sum(region.area_percentage for region in regions) == pytest.approx(100 * pixels_above / 256)
    for region in regions:
        box = region.bounding_box
        assert box.width_px >= 1
        assert box.height_px >= 1
        assert 0 <= box.x_px <= width - box.width_px
        assert 0 <= box.y_px <= height - box.height_px
        assert all(0 <= x_px < width and 0 <= y_px < height for x_px, y_px in region.polygon)
        assert 0.5 < region.peak_score <= 1
    peaks = [region.peak_score for region in regions]
    assert peaks == sorted(peaks, reverse=True)
    assert find_regions(anomaly_map, verdict_at(threshold), (width, height), max_regions) == regions[:max_regions]


@settings(deadline=None)
@given(
    anomaly_maps, roi_masks, st.floats(0, 10, width=32), st.floats(0, 10, width=32), st.sampled_from([0.1, 1.0, 10.0])
)
def test_an_image_has_regions_and_warm_colors_exactly_if_it_is_anomalous(
    anomaly_map: np.ndarray, roi_mask: np.ndarray, raw_score: float, raw_threshold: float, sensitivity: float
) -> None:
    anomaly_map = np.where(roi_mask, anomaly_map, np.nan).astype(np.float32)
    calibration = calibrated(raw_threshold).with_sensitivity(sensitivity)
    verdict = judge(RawScores(raw_score, anomaly_map), calibration)
    regions = find_regions(anomaly_map, verdict, (32, 48), 1000)
    heat = heat_levels(anomaly_map, HeatmapScale.CALIBRATED, verdict.pixel_threshold)
    is_anomalous = verdict.anomaly.is_anomalous
    assert bool(regions) == (verdict.anomaly.anomalous_area_percentage > 0) == is_anomalous
    assert is_anomalous or heat.max() <= 150
    if is_anomalous:
        highest = max(region.peak_score for region in regions)
        assert 0.5 < highest <= verdict.anomaly.score
        assert highest == pytest.approx(verdict.anomaly.score, abs=1e-6)
        hottest = heat[roi_mask & (np.nan_to_num(anomaly_map, nan=-1) == np.nanmax(anomaly_map))]
        assert (hottest >= 149).all()


@settings(deadline=None)
@given(anomaly_maps, roi_masks, st.floats(0, 10), st.integers(0, 20))
def test_there_are_no_regions_outside_the_region_of_interest(
    anomaly_map: np.ndarray, roi_mask: np.ndarray, threshold: float, max_regions: int
) -> None:
    found = find_regions(np.where(roi_mask, anomaly_map, np.nan), verdict_at(threshold), (32, 48), max_regions)
    assert found == find_regions(np.where(roi_mask, anomaly_map, 0), verdict_at(threshold), (32, 48), max_regions)
