"""Anomaly maps: one hot spot, and any map (strategies for Hypothesis)."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from patchserve_server.domain.inspection import AnomalyScore, DamageScore, Verdict

anomaly_maps = arrays.arrays(np.float32, (16, 16), elements=st.floats(0, 10, width=32))
roi_masks = arrays.arrays(np.bool_, (16, 16)).filter(np.any)


def hot_spot(size: int = 224, peak: float = 6.0) -> np.ndarray:
    """A map (S, S) with a hot spot at a quarter from the left and half way down."""
    rows, columns = np.mgrid[:size, :size].astype(np.float32) / size
    heat = np.exp(-((columns - 0.25) ** 2 + (rows - 0.5) ** 2) / 0.005)
    return np.asarray(0.5 + (peak - 0.5) * heat, np.float32)


def verdict_at(pixel_threshold: float, score: float = 1.0) -> Verdict:
    """A verdict with this pixel threshold and this anomaly score."""
    return Verdict(DamageScore(0, anomaly_detected=False), AnomalyScore(score, 1, 1, True, 0), pixel_threshold)
