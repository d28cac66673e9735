"""Encodes images."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

from patchserve_client._deep_png import deep_png
from patchserve_client._types import ImageSource

if TYPE_CHECKING:
    from PIL.Image import Image

_BGR_TO_RGB = [2, 1, 0, 3]
_PNG_MODES = {"1", "L", "LA", "I;16", "P", "RGB", "RGBA"}


def encoded(image: ImageSource, *, bgr: bool = False) -> bytes:
    """The bytes of a file unchanged, or pixels as PNG. The server checks whether bytes are an image.

    With `bgr`, arrays have the channels of OpenCV: (H, W, 3) BGR or (H, W, 4) BGRA.

    Raises:
        OSError: a file cannot be read.
        TypeError, ValueError: the value is not an `ImageSource`.
    """
    if isinstance(image, (bytes, bytearray, memoryview)):
        return bytes(image)
    if isinstance(image, (str, os.PathLike)):
        return _file(Path(image))
    return _encoded_pixels(image, bgr=bgr)


def _file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        error.filename = str(path)  # missing if the file was opened but cannot be read
        raise


def _encoded_pixels(image: object, *, bgr: bool) -> bytes:
    import numpy as np  # noqa: PLC0415 - loaded on first use
    from PIL import Image, ImageOps  # noqa: PLC0415 - loaded on first use

    if isinstance(image, Image.Image):
        upright = ImageOps.exif_transpose(image)  # the PNG will have no orientation tag
        return _png(upright if upright.mode in _PNG_MODES else upright.convert("RGB"))
    if not isinstance(image, np.ndarray):
        message = (
            f"An image must be a path, encoded bytes, a Pillow image or a NumPy array, not {type(image).__name__}."
        )
        raise TypeError(message)
    shape = image.shape
    is_gray, is_color = len(shape) == 2, len(shape) == 3 and shape[2] in (3, 4)  # noqa: PLR2004
    if not (is_gray or is_color) or 0 in shape or image.dtype not in (np.uint8, np.uint16):
        raise ValueError(
            "An array must be uint8 or uint16: (H, W) gray, (H, W, 3) RGB or (H, W, 4) RGBA (with `bgr` BGR or BGRA), "
            f"not {shape} {image.dtype}."
        )
    if bgr and is_color:
        image = image[..., _BGR_TO_RGB[: shape[2]]]
    return deep_png(image) if is_color and image.dtype == np.uint16 else _png(Image.fromarray(image))


def _png(image: Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)  # slightly larger than the default level, but several times faster
    return buffer.getvalue()
