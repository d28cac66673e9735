"""The heat map over the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from patchserve_server.domain.images import AnomalyMap, RgbImage
from patchserve_server.domain.inspection import HeatmapScale, Region
from patchserve_server.imaging.heatmap import HeatLevels, heat_levels
from patchserve_server.imaging.pil_image import PilImage, pixels_of

_HEAT_WEIGHT = 0.6
"""How much of a red-hot spot is color; the rest is the image itself."""
_OUTLINE_RGB = (255, 255, 255)
_CASING_RGB = (40, 40, 40)  # the outline shows on a white ground too
_BAND_ROWS = 64


def _jet(levels: HeatLevels) -> RgbImage:
    """RGB: hot is red."""
    return cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_JET), cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


_IMAGE_SHARE = np.rint(255 - _HEAT_WEIGHT * np.arange(256)).astype(np.uint8).repeat(3).reshape(256, 1, 3)
"""What is left of the image at each level, in 1/255."""
_HEAT_SHARE = np.rint(_jet(np.arange(256, dtype=np.uint8)[:, None]) * (1 - _IMAGE_SHARE / 255)).astype(np.uint8)
"""What the color adds at each level."""


@dataclass(frozen=True, slots=True, eq=False)
class Canvas:
    """What an overlay is drawn on: no more of an image than it takes."""

    pixels: RgbImage  # RELATIVE: at the map's size; CALIBRATED: at the overlay's. It may be read-only
    scale: HeatmapScale
    size_px: tuple[int, int]  # the overlay's (width, height)
    source_size_px: tuple[int, int]


def overlay_size(source_size_px: tuple[int, int], max_side_px: int) -> tuple[int, int]:
    """The image's own (width, height), or the same shape with a longer side of max_side_px; 0: as it is."""
    longer = max(source_size_px)
    if not 0 < max_side_px < longer:
        return source_size_px
    width, height = (max(1, round(side * max_side_px / longer)) for side in source_size_px)
    return width, height


def prepare_canvas(image: PilImage, scale: HeatmapScale, *, map_side_px: int, size_px: tuple[int, int]) -> Canvas:
    """Scales the image down before anything is drawn on it, so that a smaller overlay costs less."""
    if scale is HeatmapScale.RELATIVE:
        pixels = np.asarray(image.resize((map_side_px, map_side_px), Image.Resampling.BICUBIC))
    else:
        pixels = _scaled(image, size_px)
    return Canvas(pixels, scale, size_px, image.size)


def _scaled(image: PilImage, size_px: tuple[int, int]) -> RgbImage:
    """As good to look at as OpenCV's INTER_AREA, in a fifth to two thirds of its time."""
    if size_px == image.size:
        return pixels_of(image)
    if max(image.size) < 2 * max(size_px):  # each pixel still counts, between its neighbors
        return cv2.resize(pixels_of(image), size_px, interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)
    return np.asarray(image.resize(size_px, Image.Resampling.BILINEAR, reducing_gap=1.0))  # whole pixels first


def render_overlay(
    canvas: Canvas, anomaly_map: AnomalyMap, *, patch_threshold: float, regions: Sequence[Region]
) -> RgbImage:
    """The image under its heat map (S, S), at the overlay's size (H, W, 3).

    RELATIVE is the notebook's: JET at equal weights over the image at the map's size, stretched to the overlay's.
    CALIBRATED keeps the image sharp: the warmer a spot the more its color covers, and regions are outlined.
    """
    levels = heat_levels(anomaly_map, canvas.scale, patch_threshold)
    if canvas.scale is HeatmapScale.RELATIVE:
        blend = cv2.addWeighted(canvas.pixels, 0.5, _jet(levels), 0.5, 0).astype(np.uint8, copy=False)
        return np.asarray(Image.fromarray(blend).resize(canvas.size_px, Image.Resampling.LANCZOS))
    glowing = _glowing(canvas.pixels, levels)
    _outline(glowing, regions, np.array(canvas.size_px) / canvas.source_size_px)
    return glowing


def _glowing(image: RgbImage, levels: HeatLevels) -> RgbImage:
    height, width = image.shape[:2]
    smaller = max(height, width) < max(levels.shape)
    full = cv2.resize(levels, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)
    glowing = np.empty_like(image)
    for top in range(0, height, _BAND_ROWS):  # in bands, which stay in the cache
        band = slice(top, top + _BAND_ROWS)
        share = cv2.applyColorMap(full[band], _IMAGE_SHARE)  # (rows, W, 3)
        cv2.multiply(image[band], share, share, scale=1 / 255)
        cv2.add(share, cv2.applyColorMap(full[band], _HEAT_SHARE), glowing[band])
    return glowing


def _outline(image: RgbImage, regions: Sequence[Region], scale: NDArray[np.float64]) -> None:
    """Draws into the image; scale: its pixels a source pixel, (x, y)."""
    thickness_px = max(1, round(max(image.shape[:2]) / 400))
    outlines = [
        np.rint((np.array(region.polygon) + 0.5) * scale - 0.5).astype(np.int32)[:, None]  # (points, 1, 2)
        for region in regions
    ]
    for color, width_px in ((_CASING_RGB, 3 * thickness_px), (_OUTLINE_RGB, thickness_px)):
        cv2.polylines(image, outlines, isClosed=True, color=color, thickness=width_px, lineType=cv2.LINE_AA)
