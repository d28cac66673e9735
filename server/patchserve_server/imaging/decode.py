"""Encoded bytes to an upright image. Sizes are checked before any pixel is decoded."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError

from patchserve_server.domain.errors import (
    EmptyImageError,
    ImageTooLargeError,
    UndecodableImageError,
)
from patchserve_server.domain.images import SentImage
from patchserve_server.imaging.decode_guards import MeteredBytes, check_structure
from patchserve_server.imaging.pil_image import PilImage

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
ALLOWED = "JPEG, PNG, WebP, BMP or TIFF"

# Our own limit decides, per server; Pillow's is global and would also warn.
Image.MAX_IMAGE_PIXELS = None
# What an image's bytes provoke is told to its sender, not to the log.
warnings.filterwarnings("ignore", module=r"PIL\.")

MAX_SIDE_PX = 65_535
"""As JPEG has it. An image of one row and a million columns costs a resize gigabytes, within any limit of pixels."""

_MAX_EXIF_BYTES = 2**20
_THIRTY_TWO_BIT_MODES = ("I", "F")
_WHITE_IS_ZERO = 0
_TURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What brings an image upright, by its EXIF orientation."""


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What an image may cost."""

    max_bytes: int = 32 * 2**20
    max_pixels: int = 64_000_000


def opened(image: SentImage, limits: ImageLimits) -> PilImage:
    """An image from its file, or from its pixels, which only have to keep the limits.

    Raises:
        InvalidImageError: as `decode`.
    """
    if isinstance(image, bytes):
        return decode(image, limits)
    height, width = image.shape[:2]
    _check_size((width, height), limits)
    return Image.fromarray(image)


def decode(data: bytes, limits: ImageLimits) -> PilImage:
    """The first frame of an image, its EXIF orientation applied.

    Transparency and color profiles are dropped, as by the notebook's convert("RGB"). Gray of 12 or 16 bits is scaled
    to 8 so that white stays white; 32 bits have no agreed white and are refused.

    Raises:
        EmptyImageError: there are no bytes.
        ImageTooLargeError: more bytes or pixels than allowed.
        UndecodableImageError: another format, truncated or damaged.
    """
    if not data:
        raise EmptyImageError(f"The image is empty; send the bytes of a {ALLOWED} file.")
    if len(data) > limits.max_bytes:
        message = f"The image has {len(data):,} bytes; at most {limits.max_bytes:,} are allowed."
        raise ImageTooLargeError(message)
    check_structure(data)
    try:
        with Image.open(MeteredBytes(data), formats=FORMATS) as image:
            _check_size(image.size, limits)
            return _to_rgb(_upright(image))
    except (ImageTooLargeError, UndecodableImageError):
        raise
    except UnidentifiedImageError:
        raise UndecodableImageError(f"The bytes are not a {ALLOWED} image, or its header is damaged.") from None
    except Exception as error:  # decoders raise whatever their formats provoke
        raise UndecodableImageError(_reason(error)) from error


def _check_size(size_px: tuple[int, int], limits: ImageLimits) -> None:
    width, height = size_px
    if width * height > limits.max_pixels:
        message = f"The image has {width} x {height} pixels; at most {limits.max_pixels:,} are allowed."
        raise ImageTooLargeError(message)
    if max(width, height) > MAX_SIDE_PX:
        message = f"The image has {width} x {height} pixels; at most {MAX_SIDE_PX:,} a side are allowed."
        raise ImageTooLargeError(message)


def _upright(image: Image.Image) -> Image.Image:
    image.load()  # before the EXIF data, which may follow the pixels; TIFF comes upright from here
    turn = _TURN.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    """1 to 8, or anything else where broken EXIF data says so; 1 where they say nothing."""
    if len(image.info.get("exif", b"")) > _MAX_EXIF_BYTES:
        return 1
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 - parsers raise whatever their data provoke; broken EXIF data is as good as none
        return 1


def _to_rgb(image: Image.Image) -> PilImage:
    if image.mode in _THIRTY_TWO_BIT_MODES:
        message = "Images of 32 bits per channel are not taken; send 8 or 16 bits."
        raise UndecodableImageError(message)
    if image.mode.startswith("I;16"):
        image = Image.fromarray(_gray_levels(image)[np.asarray(image)])  # convert() would clip at 255
    if image.mode != "RGB":
        image.info.pop("transparency", None)  # not asked for, and a way to fail
        image = image.convert("RGB")
    return image


def _gray_levels(image: Image.Image) -> NDArray[np.uint8]:
    """The 8-bit level of each 16-bit value: (65536,)."""
    white, inverted = 65_535, False
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        white = 2 ** image.tag_v2.get(ExifTags.Base.BitsPerSample, (16,))[0] - 1
        inverted = image.tag_v2.get(ExifTags.Base.PhotometricInterpretation) == _WHITE_IS_ZERO
    levels = np.rint(np.arange(65_536).clip(0, white) * (255 / white)).astype(np.uint8)
    return 255 - levels if inverted else levels


def _reason(error: Exception) -> str:
    if "truncated" in str(error).lower() or isinstance(error, EOFError):
        return "The image is truncated: its last part is missing."
    return f"The bytes begin like an image but are damaged; send the bytes of a whole {ALLOWED} file."
