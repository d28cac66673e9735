"""Encoded bytes to an upright RGB picture. Sizes are checked before any pixel is decoded."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from patchserve_server.domain.errors import (
    EmptyImageError,
    ImageTooLargeError,
    UndecodableImageError,
)
from patchserve_server.domain.images import RgbImage
from patchserve_server.imaging.structure import check_structure

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
ALLOWED = "JPEG, PNG, WebP, BMP or TIFF"

# Our own limit decides, per server; Pillow's is global and would also warn.
Image.MAX_IMAGE_PIXELS = None
# What a picture's bytes provoke is told to its sender, not to the log.
warnings.filterwarnings("ignore", module=r"PIL\.")

_SIXTEEN_BIT_MODES = ("I;16", "I;16B", "I;16L", "I;16N")
_THIRTY_TWO_BIT_MODES = ("I", "F")


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What a picture may cost."""

    max_bytes: int = 32 * 2**20
    max_pixels: int = 64_000_000


def decode_rgb(data: bytes, limits: ImageLimits) -> RgbImage:
    """The first frame of a picture, its EXIF orientation applied: (H, W, 3) uint8. Transparency is dropped.

    Raises:
        EmptyImageError: there are no bytes.
        ImageTooLargeError: more bytes or pixels than allowed.
        UndecodableImageError: another format, truncated or damaged.
    """
    if not data:
        raise EmptyImageError(f"The picture is empty; send the bytes of a {ALLOWED} file.")
    if len(data) > limits.max_bytes:
        message = f"The picture has {len(data):,} bytes; at most {limits.max_bytes:,} are allowed."
        raise ImageTooLargeError(message)
    check_structure(data)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            _check_pixels(picture, limits)
            return np.ascontiguousarray(_to_rgb(_upright(picture)))
    except (ImageTooLargeError, UndecodableImageError):
        raise
    except UnidentifiedImageError:
        raise UndecodableImageError(f"The bytes are not a {ALLOWED} picture, or its header is damaged.") from None
    except Exception as error:  # decoders raise whatever their formats provoke
        raise UndecodableImageError(_reason(error)) from error


def _check_pixels(picture: ImageFile.ImageFile, limits: ImageLimits) -> None:
    width, height = picture.size
    if width * height > limits.max_pixels:
        message = f"The picture has {width} x {height} pixels; at most {limits.max_pixels:,} are allowed."
        raise ImageTooLargeError(message)


def _upright(picture: Image.Image) -> Image.Image:
    """The picture with its EXIF orientation applied; broken EXIF data is as good as none."""
    picture.load()  # a fault of the pixels must not pass for a fault of the EXIF data
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # noqa: BLE001 - parsers raise whatever their data provoke
        return picture


def _to_rgb(picture: Image.Image) -> RgbImage:
    if picture.mode in _SIXTEEN_BIT_MODES:
        levels = np.asarray(picture).astype(np.uint32)  # (H, W)
        grey = ((levels + 128) // 257).astype(np.uint8)  # 65535 becomes 255; convert() would clip at 255
        return np.repeat(grey[..., None], 3, axis=2)
    if picture.mode in _THIRTY_TWO_BIT_MODES:
        message = "Pictures of 32 bits per channel are not taken; send 8 or 16 bits."
        raise UndecodableImageError(message)
    return np.asarray(picture.convert("RGB"))


def _reason(error: Exception) -> str:
    if "truncated" in str(error).lower() or isinstance(error, EOFError):
        return "The picture is truncated: its last part is missing."
    return f"The bytes begin like a picture but are damaged; send the bytes of a whole {ALLOWED} file."
