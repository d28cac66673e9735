"""The verdict: exactly the notebook's damage score, and the anomaly score at and around its threshold."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchserve_server.domain.images import AnomalyMap
from patchserve_server.domain.inspection import RawScores, Verdict
from patchserve_server.domain.reference import Calibration, CalibrationMethod, ScoreSpread
from patchserve_server.domain.verdict import damage_score, judge

NO_MAP = np.zeros((2, 2), np.float32)
distances = st.floats(0, 1e6, width=32)


def judged(raw_score: float, threshold: float, anomaly_map: AnomalyMap) -> Verdict:
    spread = ScoreSpread(1, 0.0, 0.0, 0.0, 0.0)
    calibration = Calibration(CalibrationMethod.LEAVE_ONE_OUT, threshold, 1.0, spread)
    return judge(RawScores(raw_score, anomaly_map), calibration)


def test_the_damage_score_is_the_notebooks() -> None:
    values = np.random.default_rng(3).gamma(2, 3, (224, 224)).astype(np.float32).astype(np.float64)
    normalized = (values - values.min()) / (values.max() - values.min() + 1e-8)
    damage = damage_score(values.astype(np.float32))
    assert damage.damage_percentage == pytest.approx((normalized > 0.5).mean() * 100)
    assert damage.threshold == 0.5


@pytest.mark.parametrize(("hot_pixels", "detected"), [(0, False), (5, False), (6, True), (100, False)])
def test_damage_is_detected_above_5_percent(hot_pixels: int, detected: bool) -> None:
    values = np.full(100, 2, np.float32)
    values[:hot_pixels] = 7
    damage = damage_score(values.reshape(10, 10))
    assert damage.anomaly_detected is detected
    assert damage.damage_percentage == (hot_pixels if hot_pixels < 100 else 0)


@given(distances, distances)
def test_the_verdict_agrees_with_the_score_and_the_raw_numbers(raw: float, threshold: float) -> None:
    anomaly = judged(raw, threshold, NO_MAP).anomaly
    assert 0 <= anomaly.score <= 1
    assert anomaly.is_anomalous == (anomaly.score > 0.5) == (anomaly.raw_score > anomaly.raw_threshold)
    as_float32 = np.array([anomaly.score, anomaly.raw_score, anomaly.raw_threshold], np.float32)
    assert as_float32.tolist() == [anomaly.score, anomaly.raw_score, anomaly.raw_threshold]
    if raw + threshold > 0:
        assert anomaly.score == pytest.approx(raw / (raw + threshold), abs=1e-6)


def test_one_step_above_the_threshold_is_anomalous() -> None:
    above = math.nextafter(1.7, 2)
    just_above = float(np.nextafter(np.float32(1.7), np.float32(2)))
    assert not judged(1.7, 1.7, NO_MAP).anomaly.is_anomalous
    assert not judged(above, 1.7, NO_MAP).anomaly.is_anomalous  # the same float32
    assert judged(just_above, 1.7, NO_MAP).anomaly.is_anomalous


def test_a_distance_of_0_is_never_anomalous() -> None:
    for threshold in (0.0, 1e-6, 5.0):
        anomaly = judged(0.0, threshold, NO_MAP).anomaly
        assert (anomaly.score, anomaly.is_anomalous, anomaly.anomalous_area_percentage) == (0.0, False, 0.0)
    assert judged(0.1, 0.0, NO_MAP).anomaly.score == 1.0


def test_the_peak_of_a_map_is_as_far_above_the_pixel_threshold_as_the_image_is_above_its_own() -> None:
    anomaly_map = np.array([[1, 2], [3, 6]], np.float32)
    assert judged(4.0, 2.0, anomaly_map).pixel_threshold == 3.0
    assert judged(1.0, 2.0, anomaly_map).pixel_threshold == 12.0
    assert judged(0.0, 2.0, anomaly_map).pixel_threshold == math.inf
    assert judged(1e-40, 2.0, anomaly_map).pixel_threshold > 1e38


@pytest.mark.parametrize(("raw_score", "percentage"), [(0.0, 0.0), (1.0, 0.0), (1.01, 25.0), (2.1, 50.0), (6.1, 100.0)])
def test_the_anomalous_area_is_the_share_above_the_pixel_threshold(raw_score: float, percentage: float) -> None:
    anomaly_map = np.array([[1, 2], [3, 6]], np.float32)
    assert judged(raw_score, 1.0, anomaly_map).anomaly.anomalous_area_percentage == percentage


def test_pixels_outside_the_region_of_interest_do_not_count() -> None:
    anomaly_map = np.array([[1, 2, np.nan], [3, 6, np.nan]], np.float32)
    assert judged(2.1, 1.0, anomaly_map).anomaly.anomalous_area_percentage == 50.0
    assert damage_score(anomaly_map) == damage_score(anomaly_map[:, :2])
