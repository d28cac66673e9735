"""Raw distances to heat levels."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from patchserve_server.domain.images import AnomalyMap
from patchserve_server.domain.inspection import HeatmapScale

HeatLevels: TypeAlias = NDArray[np.uint8]
"""0 cold to 255 hot: (S, S) uint8."""

_LEVEL_AT_THRESHOLD = 150.0
"""Where JET turns from cold to warm."""


def heat_levels(anomaly_map: AnomalyMap, scale: HeatmapScale, patch_threshold: float) -> HeatLevels:
    """The heat of each pixel of a map (S, S).

    RELATIVE is the notebook's (x - min) / (max - min + 1e-8) x 255, truncated. CALIBRATED rises with the square of the
    distance to _LEVEL_AT_THRESHOLD at the patch threshold, so that intact items stay blue, then straight to red at
    twice the threshold. What lies outside of a region of interest (NaN) is cold.
    """
    if scale is HeatmapScale.RELATIVE:
        low, high = np.nanmin(anomaly_map), np.nanmax(anomaly_map)
        stretched: NDArray[np.float32] = (anomaly_map - low) / (high - low + 1e-8)
        return (np.nan_to_num(stretched, nan=0) * 255).astype(np.uint8)
    # How many thresholds, 0 to 2; over a threshold of 0 everything is hot.
    scores = np.nan_to_num(anomaly_map, nan=0)
    ratio = scores.clip(0, 2 * patch_threshold).astype(np.float64) / (patch_threshold or 1)
    if patch_threshold == 0:
        ratio = np.where(scores > 0, 2.0, 0.0)
    below = _LEVEL_AT_THRESHOLD * ratio.clip(0, 1) ** 2
    above = (255 - _LEVEL_AT_THRESHOLD) * (ratio - 1).clip(0, 1)
    levels: HeatLevels = (below + above).astype(np.uint8)
    return levels
