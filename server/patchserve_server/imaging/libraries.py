"""Settings of OpenCV, Pillow and warnings that hold for the whole process."""

from __future__ import annotations

import warnings

import cv2
from PIL import Image


def configure_libraries() -> None:
    """Set up the image libraries for a server. Call it once at the start; calling it again changes nothing.

    Decoding is correct and safe without it, but Pillow then refuses images of more than 179 million pixels, whatever
    `ImageLimits` allows, and warns about odd files.
    """
    # The server handles images in parallel on its own threads; OpenCV's threads would only compete with them.
    cv2.setNumThreads(1)
    # `ImageLimits` decides how many pixels are allowed.
    Image.MAX_IMAGE_PIXELS = None
    # Pillow warns about the callers' files, which does not belong in the server's log.
    warnings.filterwarnings("ignore", module=r"PIL\.")
