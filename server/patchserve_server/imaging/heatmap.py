"""Heat maps: anomaly maps in 256 levels of heat, with the colors of OpenCV's JET."""

from __future__ import annotations

from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from patchserve_server.domain.images import AnomalyMap, RgbImage
from patchserve_server.domain.inspection import HeatmapScale

HeatLevels: TypeAlias = NDArray[np.uint8]
"""0 cold to 255 hot: (H, W) uint8."""

_LEVEL_AT_THRESHOLD = 150.0
"""Where JET turns from cold to warm colors."""


def heat_levels(anomaly_map: AnomalyMap, scale: HeatmapScale, pixel_threshold: float) -> HeatLevels:
    """The heat of each pixel of a map (H, W). Pixels outside the region of interest (NaN) are cold.

    RELATIVE is the notebook's (x - min) / (max - min + 1e-8) x 255, truncated. CALIBRATED rises with the square of the
    distance up to _LEVEL_AT_THRESHOLD at the pixel threshold, so that intact items stay blue. Above, it rises linearly
    to red at twice the threshold.
    """
    if scale is HeatmapScale.RELATIVE:
        return _relative_levels(anomaly_map)
    return _calibrated_levels(anomaly_map, pixel_threshold)


def _relative_levels(anomaly_map: AnomalyMap) -> HeatLevels:
    low, high = np.nanmin(anomaly_map), np.nanmax(anomaly_map)
    normalized: NDArray[np.float32] = (anomaly_map - low) / (high - low + 1e-8)
    return (np.nan_to_num(normalized, nan=0) * 255).astype(np.uint8)


def _calibrated_levels(anomaly_map: AnomalyMap, pixel_threshold: float) -> HeatLevels:
    scores = np.nan_to_num(anomaly_map, nan=0)
    if pixel_threshold <= 0:
        ratio = np.where(scores > pixel_threshold, 2.0, 0.0)
    else:
        ratio = (scores.astype(np.float64) / pixel_threshold).clip(0, 2)  # (H, W)
    below = _LEVEL_AT_THRESHOLD * ratio.clip(0, 1) ** 2
    above = (255 - _LEVEL_AT_THRESHOLD) * (ratio - 1).clip(0, 1)
    levels: HeatLevels = (below + above).astype(np.uint8)
    return levels


def heat_colors(levels: HeatLevels) -> RgbImage:
    """The color of each level: cold is blue, hot is red."""
    return cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_JET), cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
