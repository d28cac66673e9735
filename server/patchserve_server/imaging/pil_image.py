"""A decoded image and access to its pixels."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from PIL import Image

from patchserve_server.domain.images import RgbImage
from patchserve_server.imaging.bands import row_bands

PilImage: TypeAlias = Image.Image
"""A decoded image: upright, in mode RGB, completely in memory. Pillow can scale it without an array of all pixels."""

_MAX_UNBANDED_PIXELS = 2**22
_BAND_ROWS = 512


def to_rgb_array(image: PilImage) -> RgbImage:
    """The pixels of an image: (H, W, 3), C-contiguous, possibly read-only."""
    width, height = image.size
    if width * height <= _MAX_UNBANDED_PIXELS:
        return np.asarray(image)
    rgb = np.empty((height, width, 3), np.uint8)
    for band in row_bands(height, _BAND_ROWS):  # np.asarray would make a second copy of a large image
        rgb[band] = np.asarray(image.crop((0, band.start, width, band.stop)))
    return rgb
