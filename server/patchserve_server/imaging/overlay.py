"""Overlays: the heat map over the image."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from patchserve_server.domain.images import AnomalyMap, RgbImage
from patchserve_server.domain.inspection import HeatmapScale, Region
from patchserve_server.imaging.bands import row_bands
from patchserve_server.imaging.canvas import Canvas
from patchserve_server.imaging.enlarging import resize_lanczos
from patchserve_server.imaging.heatmap import HeatLevels, heat_colors, heat_levels

_MAX_HEAT_WEIGHT = 0.6
"""The weight of the color where the heat is highest; the rest is the image."""
_OUTLINE_RGB = (255, 255, 255)
_OUTLINE_BORDER_RGB = (40, 40, 40)  # a dark edge, so that the white outline is visible on a white image
_BAND_ROWS = 64

IMAGE_WEIGHTS = np.rint(255 - _MAX_HEAT_WEIGHT * np.arange(256)).astype(np.uint8).repeat(3).reshape(256, 1, 3)
"""The weight of the image at each heat level, in 1/255."""
WEIGHTED_COLORS = np.rint(heat_colors(np.arange(256, dtype=np.uint8)[:, None]) * (1 - IMAGE_WEIGHTS / 255)).astype(
    np.uint8
)
"""The color to add at each heat level."""


def render_overlay(
    canvas: Canvas, anomaly_map: AnomalyMap, *, pixel_threshold: float, regions: Sequence[Region]
) -> RgbImage:
    """Draw the heat map of an anomaly map (H, W) over the canvas: (H, W, 3) at the overlay's size.

    RELATIVE is the notebook's overlay: JET and image with equal weights in the map's size, then resized (LANCZOS).
    CALIBRATED keeps the image sharp: the hotter a pixel, the more its color covers the image. Regions are outlined.
    """
    levels = heat_levels(anomaly_map, canvas.scale, pixel_threshold)
    if canvas.scale is HeatmapScale.RELATIVE:
        blend = cv2.addWeighted(canvas.pixels, 0.5, heat_colors(levels), 0.5, 0).astype(np.uint8, copy=False)
        return resize_lanczos(blend, canvas.size_px)
    overlay = _blend_by_heat(canvas.pixels, levels)
    draw_outlines(overlay, [region.polygon for region in regions], np.array(canvas.size_px) / canvas.source_size_px)
    return overlay


def _blend_by_heat(image: RgbImage, levels: HeatLevels) -> RgbImage:
    height, width = image.shape[:2]
    interpolation = cv2.INTER_AREA if levels_shrink(levels, (width, height)) else cv2.INTER_CUBIC
    levels_at_size = cv2.resize(levels, (width, height), interpolation=interpolation)  # (H, W)
    blend = np.empty_like(image)
    for band in row_bands(height, _BAND_ROWS):
        weighted_image = cv2.applyColorMap(levels_at_size[band], IMAGE_WEIGHTS)  # (rows, W, 3)
        cv2.multiply(image[band], weighted_image, weighted_image, scale=1 / 255)
        cv2.add(weighted_image, cv2.applyColorMap(levels_at_size[band], WEIGHTED_COLORS), blend[band])
    return blend


def levels_shrink(levels: HeatLevels, size_px: tuple[int, int]) -> bool:
    """Whether an overlay of this (width, height) has fewer levels than the map (H, W)."""
    return bool(max(size_px) < max(levels.shape))


def draw_outlines(
    image: NDArray[np.uint8], outlines: Sequence[Sequence[tuple[int, int]]], scale: NDArray[np.float64]
) -> None:
    """Draw outlines into an image (H, W, 3), or into one plane of it (H, W): they are gray.

    Args:
        image: is changed.
        outlines: (x, y) in pixels of the source image.
        scale: (x, y), image pixels per source pixel.
    """
    thickness_px = max(1, round(max(image.shape[:2]) / 400))
    scaled = [
        np.rint((np.array(outline) + 0.5) * scale - 0.5).astype(np.int32)[:, None]  # (points, 1, 2)
        for outline in outlines
    ]
    for color, line_px in ((_OUTLINE_BORDER_RGB, 3 * thickness_px), (_OUTLINE_RGB, thickness_px)):
        cv2.polylines(image, scaled, isClosed=True, color=color, thickness=line_px, lineType=cv2.LINE_AA)
