"""Images as the bytes that the contract takes."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

from patchserve_client._types import ImageSource

if TYPE_CHECKING:
    from PIL.Image import Image

_PNG_MODES = {"1", "L", "LA", "I;16", "P", "RGB", "RGBA"}


def encoded(image: ImageSource) -> bytes:
    """The bytes of a file as they are, or the PNG of pixels. Whether bytes are an image is for the server to say.

    Raises:
        OSError: a file cannot be read.
        TypeError, ValueError: not an image in any form that `ImageSource` names.
    """
    if isinstance(image, (bytes, bytearray, memoryview)):
        return bytes(image)
    if isinstance(image, (str, os.PathLike)):
        return Path(image).read_bytes()
    return _png(_pillow(image))


def _pillow(image: object) -> Image:
    import numpy as np  # noqa: PLC0415 - loaded on first use
    from PIL import Image, ImageOps  # noqa: PLC0415 - loaded on first use

    if isinstance(image, Image.Image):
        upright = ImageOps.exif_transpose(image)  # a PNG of pixels has no orientation tag left to tell it
        return upright if upright.mode in _PNG_MODES else upright.convert("RGB")
    if not isinstance(image, np.ndarray):
        message = f"An image is a path, encoded bytes, a Pillow image or a NumPy array, not {type(image).__name__}."
        raise TypeError(message)
    shape = image.shape
    gray = len(shape) == 2 and image.dtype in (np.uint8, np.uint16)  # noqa: PLR2004
    colored = len(shape) == 3 and shape[2] in (3, 4) and image.dtype == np.uint8  # noqa: PLR2004
    if not (gray or colored) or 0 in shape:
        raise ValueError(
            "An array is (H, W) uint8 or uint16 gray, or (H, W, 3) RGB or (H, W, 4) RGBA uint8, "
            f"not {shape} {image.dtype}."
        )
    return Image.fromarray(image)


def _png(image: Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)  # a little larger than the default and several times faster
    return buffer.getvalue()
