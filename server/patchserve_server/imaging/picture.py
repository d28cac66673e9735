"""A decoded picture, and its pixels."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from PIL import Image

from patchserve_server.domain.images import RgbImage

Picture: TypeAlias = Image.Image
"""Upright, of mode RGB, all of it in memory. Whoever scales it needs no array of all its pixels first."""

_WHOLE_PIXELS = 2**22
_BAND_ROWS = 512


def pixels_of(picture: Picture) -> RgbImage:
    """All of a picture: (H, W, 3), C-contiguous, not to be written to."""
    width, height = picture.size
    if width * height <= _WHOLE_PIXELS:
        return np.asarray(picture)
    rgb = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, _BAND_ROWS):  # in bands: one copy of a large picture at a time
        bottom = min(height, top + _BAND_ROWS)
        rgb[top:bottom] = np.asarray(picture.crop((0, top, width, bottom)))
    return rgb
