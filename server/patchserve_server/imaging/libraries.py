"""Process-wide settings of OpenCV, Pillow and warnings."""

from __future__ import annotations

import contextlib
import ctypes
import warnings

import cv2
from PIL import Image, _imaging


def configure_libraries() -> None:
    """Set up the image libraries for a server. Call it once at the start; calling it again changes nothing.

    Decoding is correct and safe without it, but Pillow then rejects images of more than 179 million pixels, even if
    `ImageLimits` allows them, and warns about unusual files.
    """
    # The server handles images in parallel on its own threads; Threads of OpenCV would only compete with them.
    cv2.setNumThreads(1)
    # `ImageLimits` decides how many pixels are allowed.
    Image.MAX_IMAGE_PIXELS = None
    # Pillow's warnings are about the callers' files and do not belong in the server's log.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    _silence_libtiff()


def _silence_libtiff() -> None:
    """Keep libtiff from writing a line to standard error for each damaged TIFF: callers decide how many there are.

    Pillow has no function for it; it raises an error for such a file in any case.
    """
    with contextlib.suppress(AttributeError):  # a Pillow without libtiff, or a system that hides its functions
        ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)
