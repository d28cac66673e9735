"""The verdict: a pure function of raw scores and thresholds."""

from __future__ import annotations

import numpy as np

from patchserve_server.domain.images import AnomalyMap
from patchserve_server.domain.inspection import AnomalyScore, DamageScore, RawScores, Verdict
from patchserve_server.domain.reference import Calibration

_DAMAGE_LEVEL = 0.5
_DAMAGE_PERCENTAGE = 5.0


def judge(raw: RawScores, calibration: Calibration) -> Verdict:
    """Both scores of one image."""
    return Verdict(damage=damage_score(raw.anomaly_map), anomaly=anomaly_score(raw, calibration))


def damage_score(anomaly_map: AnomalyMap) -> DamageScore:
    """The notebook's measure: the share of the map above the middle of its range. Damage is detected above 5 %."""
    values = anomaly_map[~np.isnan(anomaly_map)].astype(np.float64)
    scaled = (values - values.min()) / (values.max() - values.min() + 1e-8)
    percentage = 100.0 * float(np.mean(scaled > _DAMAGE_LEVEL))
    return DamageScore(percentage, percentage > _DAMAGE_PERCENTAGE, _DAMAGE_LEVEL)


def anomaly_score(raw: RawScores, calibration: Calibration) -> AnomalyScore:
    """The calibrated score: raw / (raw + threshold). It is 0.5 at the threshold, and 0 for a distance of 0.

    All three numbers are first rounded to float32, the type of the contract's fields. So a client also sees score > 0.5
    exactly when raw_score > raw_threshold.
    """
    raw_score, threshold = np.float32(raw.image_score), np.float32(calibration.image_threshold)
    score = np.float32(float(raw_score) / (float(raw_score) + float(threshold))) if raw_score > 0 else np.float32(0)
    is_anomalous = bool(raw_score > threshold)
    if is_anomalous:
        score = max(score, np.nextafter(np.float32(0.5), np.float32(1)))
    anomalous_pixels = np.count_nonzero(raw.anomaly_map > calibration.patch_threshold)
    area_percentage = 100.0 * anomalous_pixels / np.count_nonzero(~np.isnan(raw.anomaly_map))
    return AnomalyScore(float(score), float(raw_score), float(threshold), is_anomalous, area_percentage)
