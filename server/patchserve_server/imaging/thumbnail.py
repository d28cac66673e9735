"""Thumbnails: small pictures of inspected images, drawn from the model input, so that nothing is decoded again."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from patchserve_server.domain.images import AnomalyMap, ModelInputs
from patchserve_server.domain.inspection import HeatmapScale, Verdict
from patchserve_server.imaging.canvas import Canvas, overlay_size
from patchserve_server.imaging.overlay import render_overlay

THUMBNAIL_SIDE_PX: Final = 208
_LARGEST_SOURCE_PX: Final = 4 * THUMBNAIL_SIDE_PX
_JPEG_OPTIONS: Final = (cv2.IMWRITE_JPEG_QUALITY, 80)


def shrink_for_thumbnail(model_input: ModelInputs) -> ModelInputs:
    """The model input (H, W, 3), or a smaller copy of a large one that is enough for a thumbnail."""
    height_px, width_px = model_input.shape[:2]
    size_px = overlay_size((width_px, height_px), _LARGEST_SOURCE_PX)
    if size_px == (width_px, height_px):
        return model_input
    return cv2.resize(model_input, size_px, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def draw_thumbnail(
    model_input: ModelInputs, source_size_px: tuple[int, int], anomaly_map: AnomalyMap, verdict: Verdict
) -> bytes:
    """A JPEG of a model input (H, W, 3) in the proportions of its image, with the heat map (H, W) if it is anomalous.

    Its longer side has THUMBNAIL_SIDE_PX, or as many pixels as the image if that is smaller.
    """
    size_px = overlay_size(source_size_px, THUMBNAIL_SIDE_PX)
    pixels = cv2.resize(model_input, size_px).astype(np.uint8, copy=False)  # (H, W, 3)
    if verdict.anomaly.is_anomalous:
        canvas = Canvas(pixels, HeatmapScale.CALIBRATED, size_px, source_size_px)
        pixels = render_overlay(canvas, anomaly_map, pixel_threshold=verdict.pixel_threshold, regions=())
    _, data = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), _JPEG_OPTIONS)
    return data.tobytes()
