"""The verdict: a pure function of raw scores and thresholds."""

from __future__ import annotations

import numpy as np

from patchserve_server.domain.images import AnomalyMap
from patchserve_server.domain.inspection import AnomalyScore, DamageScore, RawScores, Verdict
from patchserve_server.domain.reference import Calibration

_DAMAGE_LEVEL = 0.5
_DAMAGE_PERCENTAGE = 5.0
_ABOVE_HALF = np.nextafter(np.float32(0.5), np.float32(1))
_LARGEST = float(np.finfo(np.float32).max)


def judge(raw: RawScores, calibration: Calibration) -> Verdict:
    """Both scores of one image, and where its pixels are anomalous."""
    raw_score, raw_threshold = np.float32(raw.image_score), np.float32(calibration.image_threshold)
    threshold = pixel_threshold(raw.anomaly_map, raw_score, raw_threshold)
    area_percentage = (
        100.0 * np.count_nonzero(raw.anomaly_map > threshold) / np.count_nonzero(~np.isnan(raw.anomaly_map))
    )
    return Verdict(
        damage=damage_score(raw.anomaly_map),
        anomaly=anomaly_score(raw_score, raw_threshold, area_percentage),
        pixel_threshold=float(threshold),
    )


def damage_score(anomaly_map: AnomalyMap) -> DamageScore:
    """The notebook's measure: the share of the map above the middle of its range. Damage is detected above 5 %."""
    values = anomaly_map[~np.isnan(anomaly_map)].astype(np.float64)
    lowest, highest = values.min(), values.max()
    values -= lowest  # in place: a map has 100,000 values, and every image gets this measure
    values /= highest - lowest + 1e-8
    percentage = 100.0 * float(np.mean(values > _DAMAGE_LEVEL))
    return DamageScore(percentage, percentage > _DAMAGE_PERCENTAGE, _DAMAGE_LEVEL)


def anomaly_score(raw_score: np.float32, raw_threshold: np.float32, area_percentage: float) -> AnomalyScore:
    """The calibrated score: raw / (raw + threshold). It is 0.5 at the threshold, and 0 for a distance of 0.

    All three numbers are float32, the type of the contract's fields. So a client also sees score > 0.5 exactly when
    raw_score > raw_threshold.
    """
    score = calibrated_score(raw_score, raw_threshold)
    return AnomalyScore(score, float(raw_score), float(raw_threshold), bool(raw_score > raw_threshold), area_percentage)


def calibrated_score(raw: np.float32, threshold: np.float32) -> float:
    """The score raw / (raw + threshold) in float32, 0 to 1: above 0.5 exactly if raw is above the threshold."""
    if raw > threshold <= 0:
        return 1.0
    score = np.float32(float(raw) / (float(raw) + float(threshold))) if raw > 0 else np.float32(0)
    return float(max(score, _ABOVE_HALF) if raw > threshold else score)


def pixel_threshold(anomaly_map: AnomalyMap, raw_score: np.float32, raw_threshold: np.float32) -> np.float32:
    """The value above which a pixel of this map is anomalous: the map's peak, divided by raw_score / raw_threshold.

    So a map is read on the scale of its own image: its peak is exactly as far above the threshold as the image is, and
    some pixel is anomalous exactly if the image is. (A threshold of pixels alone could contradict the verdict, which
    depends on many patches.)
    """
    peak = np.float32(np.nanmax(anomaly_map))
    if raw_score == 0:
        return np.float32(np.inf)
    level = np.float32(min(float(peak) * float(raw_threshold) / float(raw_score), _LARGEST))
    return min(level, np.nextafter(peak, np.float32(-np.inf))) if raw_score > raw_threshold else max(level, peak)
