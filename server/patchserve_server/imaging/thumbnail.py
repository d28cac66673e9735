"""Thumbnails: small pictures of inspected images, drawn from the model input, so that nothing is decoded again.

A JPEG that a device has decoded has no model input here: it is decoded in a small size.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from patchserve_server.domain.images import AnomalyMap, ModelInputs, RgbImage
from patchserve_server.domain.inspection import HeatmapScale, Verdict
from patchserve_server.imaging.canvas import Canvas, overlay_size
from patchserve_server.imaging.decode import upright
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


def small_image(data: bytes, orientation: int) -> RgbImage:
    """The image of a JPEG (H, W, 3), turned upright: small, but enough for a thumbnail."""
    height_px, width_px, *_ = simplejpeg.decode_jpeg_header(data)
    width_px, height_px = overlay_size((width_px, height_px), THUMBNAIL_SIDE_PX)
    pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=height_px, min_width=width_px, strict=False)
    return np.asarray(upright(Image.fromarray(pixels), orientation))


def draw_thumbnail(
    image: RgbImage, source_size_px: tuple[int, int], anomaly_map: AnomalyMap, verdict: Verdict
) -> bytes:
    """A JPEG of a model input or a small image (H, W, 3) in the proportions of its source.

    With the heat map (H, W) if it is anomalous. Its longer side has THUMBNAIL_SIDE_PX, or as many pixels as its source
    if that is smaller.
    """
    size_px = overlay_size(source_size_px, THUMBNAIL_SIDE_PX)
    pixels = cv2.resize(image, size_px).astype(np.uint8, copy=False)  # (H, W, 3)
    if verdict.anomaly.is_anomalous:
        canvas = Canvas(pixels, HeatmapScale.CALIBRATED, size_px, source_size_px)
        pixels = render_overlay(canvas, anomaly_map, pixel_threshold=verdict.pixel_threshold, regions=())
    _, data = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), _JPEG_OPTIONS)
    return data.tobytes()
