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
_CASING_RGB = (40, 40, 40)  # the outline shows on a white ground too
_BAND_ROWS = 512
# By measurement: a third of the time of Pillow at level 1, the file up to a quarter larger. JET gains little from
# searching for matches, and one fixed filter spares the encoder trying five on each row.
_PNG_OPTIONS = (
    cv2.IMWRITE_PNG_COMPRESSION,
    1,
    cv2.IMWRITE_PNG_STRATEGY,
    cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY,
    cv2.IMWRITE_PNG_FILTER,
    cv2.IMWRITE_PNG_FILTER_SUB,
)


def _jet(levels: HeatLevels) -> RgbImage:
    """RGB: hot is red."""
    return cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_JET), cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


_PICTURE_SHARE = np.rint(255 - _HEAT_WEIGHT * np.arange(256)).astype(np.uint8).repeat(3).reshape(256, 1, 3)
"""What is left of the picture at each level, in 1/255."""
_HEAT_SHARE = np.rint(_jet(np.arange(256, dtype=np.uint8)[:, None]) * (1 - _PICTURE_SHARE / 255)).astype(np.uint8)
"""What the colour adds at each level."""


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
    """PNG, lossless, encoded for speed."""
    _, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), _PNG_OPTIONS)
    return data.tobytes()


def _notebook_overlay(image: RgbImage, levels: HeatLevels) -> RgbImage:
    height, width = image.shape[:2]
    small = np.asarray(Image.fromarray(image).resize(levels.shape[::-1], Image.Resampling.BICUBIC))
    blend = cv2.addWeighted(small, 0.5, _jet(levels), 0.5, 0).astype(np.uint8, copy=False)
    return np.asarray(Image.fromarray(blend).resize((width, height), Image.Resampling.LANCZOS))


def _glowing(image: RgbImage, levels: HeatLevels) -> RgbImage:
    height, width = image.shape[:2]
    full = cv2.resize(levels, (width, height), interpolation=cv2.INTER_CUBIC)
    glowing = np.empty_like(image)
    for top in range(0, height, _BAND_ROWS):  # in bands: a large picture's copies would take a gigabyte
        band = slice(top, top + _BAND_ROWS)
        channels = cv2.merge([full[band]] * 3)  # (rows, W, 3)
        picture = cv2.multiply(image[band], cv2.LUT(channels, _PICTURE_SHARE), scale=1 / 255)
        glowing[band] = cv2.add(picture, cv2.LUT(channels, _HEAT_SHARE))
    return glowing


def _outlined(image: RgbImage, regions: Sequence[Region]) -> RgbImage:
    thickness_px = max(1, round(max(image.shape[:2]) / 400))
    outlines = [np.array(region.polygon, np.int32)[:, None] for region in regions]  # (points, 1, 2)
    for colour, width_px in ((_CASING_RGB, 3 * thickness_px), (_OUTLINE_RGB, thickness_px)):
        cv2.polylines(image, outlines, isClosed=True, color=colour, thickness=width_px, lineType=cv2.LINE_AA)
    return image
