"""A decoded image, and its pixels."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from PIL import Image

from patchserve_server.domain.images import RgbImage

PilImage: TypeAlias = Image.Image
"""Upright, of mode RGB, all of it in memory. Whoever scales it needs no array of all its pixels first."""

_WHOLE_PIXELS = 2**22
_BAND_ROWS = 512


def pixels_of(image: PilImage) -> RgbImage:
    """All of an image: (H, W, 3), C-contiguous, not to be written to."""
    width, height = image.size
    if width * height <= _WHOLE_PIXELS:
        return np.asarray(image)
    rgb = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, _BAND_ROWS):  # in bands: one copy of a large image at a time
        bottom = min(height, top + _BAND_ROWS)
        rgb[top:bottom] = np.asarray(image.crop((0, top, width, bottom)))
    return rgb
