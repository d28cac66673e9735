"""Connected areas over the patch threshold, in source pixels."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from patchserve_server.domain.images import AnomalyMap
from patchserve_server.domain.inspection import BoundingBox, Region


def find_regions(
    anomaly_map: AnomalyMap, patch_threshold: float, source_size_px: tuple[int, int], max_regions: int
) -> tuple[Region, ...]:
    """The areas of the map (S, S) that are over the threshold, the strongest first, in pixels of the source (w, h)."""
    over = anomaly_map > patch_threshold  # (S, S), False where the map is NaN
    _, found, boxes, _ = cv2.connectedComponentsWithStats(over.astype(np.uint8))
    labels = found.astype(np.int32, copy=False)
    peaks = np.zeros(len(boxes), np.float32)
    np.maximum.at(peaks, labels[over], anomaly_map[over])
    every = [_Area(label, float(peak), box) for label, (peak, box) in enumerate(zip(peaks, boxes, strict=True))]
    areas = every[1:]  # 0 is what lies under the threshold
    areas.sort(key=lambda area: -area.peak)
    scale = np.array(source_size_px) / over.shape[::-1]  # source pixels a map pixel, (x, y)
    return tuple(_region(area, labels, patch_threshold, scale) for area in areas[:max_regions])


@dataclass(frozen=True, slots=True, eq=False)
class _Area:
    label: int
    peak: float
    box: NDArray[np.int32]  # x, y, width, height, area in map pixels


def _region(area: _Area, labels: NDArray[np.int32], patch_threshold: float, scale: NDArray[np.float64]) -> Region:
    left, top, width, height, pixels = (int(number) for number in area.box)
    size_px = np.rint(np.array(labels.shape[::-1]) * scale).astype(int)
    low = np.minimum(np.floor((left, top) * scale).astype(int), size_px - 1)
    high = np.clip(np.ceil((left + width, top + height) * scale).astype(int), low + 1, size_px)
    shape = (labels[top : top + height, left : left + width] == area.label).astype(np.uint8)
    (outline, *_), _ = cv2.findContours(shape, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE, offset=(left, top))
    # OpenCV goes counter-clockwise; the center of a map pixel stands for it.
    points = np.clip(((outline[::-1, 0] + 0.5) * scale).astype(int), 0, size_px - 1)
    return Region(
        bounding_box=BoundingBox(int(low[0]), int(low[1]), int(high[0] - low[0]), int(high[1] - low[1])),
        polygon=tuple(map(tuple, points.tolist())),
        area_px=float(pixels * scale.prod()),
        area_percentage=100.0 * pixels / labels.size,
        peak_score=area.peak / (area.peak + patch_threshold),
    )
