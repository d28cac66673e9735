"""The heat map over the picture."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image

from patchserve_server.domain.images import AnomalyMap, RgbImage
from patchserve_server.domain.inspection import HeatmapScale, Region
from patchserve_server.imaging.heatmap import HeatLevels, heat_levels

_HEAT_WEIGHT = 0.6
"""How much of a red-hot spot is colour; the rest is the picture itself."""
_OUTLINE_RGB = (255, 255, 255)
_PNG_LEVEL = 1


def render_overlay(
    image: RgbImage,
    anomaly_map: AnomalyMap,
    *,
    scale: HeatmapScale,
    patch_threshold: float,
    regions: Sequence[Region],
) -> RgbImage:
    """The picture under its heat map, at the picture's size (H, W, 3).

    RELATIVE is the notebook's: JET at equal weights over the picture at the map's size, stretched to the source size.
    CALIBRATED keeps the picture sharp: the warmer a spot the more its colour covers, and regions are outlined.
    """
    levels = heat_levels(anomaly_map, scale, patch_threshold)
    if scale is HeatmapScale.RELATIVE:
        return _notebook_overlay(image, levels)
    return _outlined(_glowing(image, levels), regions)


def encode_png(image: RgbImage) -> bytes:
    """PNG at the level that costs least time a byte saved (docs/performance.md)."""
    _, data = cv2.imencode(".png", image[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, _PNG_LEVEL])
    return data.tobytes()


def _notebook_overlay(image: RgbImage, levels: HeatLevels) -> RgbImage:
    height, width = image.shape[:2]
    small = np.asarray(Image.fromarray(image).resize(levels.shape[::-1], Image.Resampling.BICUBIC))
    blend = cv2.addWeighted(small, 0.5, _jet(levels), 0.5, 0).astype(np.uint8, copy=False)
    return np.asarray(Image.fromarray(blend).resize((width, height), Image.Resampling.LANCZOS))


def _glowing(image: RgbImage, levels: HeatLevels) -> RgbImage:
    height, width = image.shape[:2]
    full = cv2.resize(levels, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.uint8, copy=False)
    # weight(level) x 256, so that the blend stays in integers: colour x weight + picture x (1 - weight)
    weight = (np.arange(256) * _HEAT_WEIGHT).astype(np.uint16)[full][..., None]  # (H, W, 1)
    return ((_jet(full) * weight + image * (256 - weight)) >> 8).astype(np.uint8)


def _outlined(image: RgbImage, regions: Sequence[Region]) -> RgbImage:
    thickness_px = max(1, round(max(image.shape[:2]) / 400))
    outlines = [np.array(region.polygon, np.int32)[:, None] for region in regions]  # (points, 1, 2)
    cv2.polylines(image, outlines, isClosed=True, color=_OUTLINE_RGB, thickness=thickness_px, lineType=cv2.LINE_AA)
    return image


def _jet(levels: HeatLevels) -> RgbImage:
    """RGB: hot is red."""
    return cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_JET), cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
