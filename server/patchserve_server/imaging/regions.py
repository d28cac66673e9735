"""Regions: connected areas of an anomaly map above the pixel threshold, in pixels of the source image."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from patchserve_server.domain.images import AnomalyMap
from patchserve_server.domain.inspection import BoundingBox, Region, Verdict
from patchserve_server.domain.verdict import calibrated_score


def find_regions(
    anomaly_map: AnomalyMap, verdict: Verdict, source_size_px: tuple[int, int], max_regions: int
) -> tuple[Region, ...]:
    """The regions of a map (H, W), highest peak first, in pixels of the source image (width, height).

    There are none if the image is intact, and at least one if it is anomalous.
    """
    above_threshold = anomaly_map > verdict.pixel_threshold  # (H, W), False where the map is NaN
    _, component_labels, boxes, _ = cv2.connectedComponentsWithStats(above_threshold.astype(np.uint8))
    labels = component_labels.astype(np.int32, copy=False)  # (H, W), 0: not above the threshold
    peaks = np.zeros(len(boxes), np.float32)
    np.maximum.at(peaks, labels[above_threshold], anomaly_map[above_threshold])
    components = [
        _Component(label, peak, box) for label, (peak, box) in enumerate(zip(peaks, boxes, strict=True)) if label != 0
    ]
    components.sort(key=lambda component: -component.peak)
    scale = np.array(source_size_px) / labels.shape[::-1]  # (x, y), source pixels per map pixel
    return tuple(_region(component, labels, verdict, scale) for component in components[:max_regions])


@dataclass(frozen=True, slots=True, eq=False)
class _Component:
    label: int
    peak: np.float32
    box: NDArray[np.int32]  # x, y, width, height, area in map pixels


def _region(component: _Component, labels: NDArray[np.int32], verdict: Verdict, scale: NDArray[np.float64]) -> Region:
    left, top, width, height, area = (int(number) for number in component.box)
    size_px = np.rint(np.array(labels.shape[::-1]) * scale).astype(int)
    start = np.minimum(np.floor((left, top) * scale).astype(int), size_px - 1)
    stop = np.clip(np.ceil((left + width, top + height) * scale).astype(int), start + 1, size_px)
    mask = (labels[top : top + height, left : left + width] == component.label).astype(np.uint8)
    (outline, *_), _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE, offset=(left, top))
    # OpenCV's outlines are counter-clockwise lists of map pixels; each pixel is replaced by its center.
    points = np.clip(((outline[::-1, 0] + 0.5) * scale).astype(int), 0, size_px - 1)
    peak_score = calibrated_score(component.peak, np.float32(verdict.pixel_threshold))
    return Region(
        bounding_box=BoundingBox(int(start[0]), int(start[1]), int(stop[0] - start[0]), int(stop[1] - start[1])),
        polygon=tuple(map(tuple, points.tolist())),
        area_px=float(area * scale.prod()),
        area_percentage=100.0 * area / labels.size,
        # The limit is for rounding: the highest peak has the score of the image.
        peak_score=min(peak_score, verdict.anomaly.score),
    )
