"""Encoded images to upright RGB images. Limits are checked before any pixel is decoded."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError

from patchserve_server.domain.errors import (
    EmptyImageError,
    ImageTooLargeError,
    UndecodableImageError,
)
from patchserve_server.domain.images import SentImage
from patchserve_server.imaging.decode_guards import LimitedReads, check_decoding_cost
from patchserve_server.imaging.jpeg import decode_jpeg
from patchserve_server.imaging.limits import ImageLimits
from patchserve_server.imaging.pil_image import PilImage
from patchserve_server.imaging.png_guard import check_png_checksums, check_png_is_complete
from patchserve_server.imaging.tiff_jpeg import check_tiff_jpeg
from patchserve_server.imaging.transparency import on_white, scale_transparent_color

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
_FORMATS_TEXT = "JPEG, PNG, WebP, BMP or TIFF"
_JPEG = ("JPEG", "MPO")  # MPO: several JPEGs in one file; only the first one counts
_MAX_EXIF_BYTES = 2**20
_MODES_32_BIT = ("I", "F")
_WHITE_IS_ZERO = 0
_UPRIGHT = 1
_TRANSPOSE_BY_ORIENTATION = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How to make an image upright, by its EXIF orientation."""


def open_image(image: SentImage, limits: ImageLimits) -> PilImage:
    """Decode an encoded file, or wrap an RGB array.

    Raises:
        InvalidImageError: as for `decode_image`. The only error of an array is that it is too large.
    """
    if isinstance(image, bytes):
        return decode_image(image, limits)
    height, width = image.shape[:2]
    limits.check_size((width, height))
    return Image.fromarray(image)


def decode_image(data: bytes, limits: ImageLimits) -> PilImage:
    """Decode the first frame of an image file and apply its EXIF orientation.

    Transparent parts become white. Color profiles are ignored, as in the notebook's convert("RGB"). Gray images of 12
    or 16 bits are scaled to 8 bits so that white stays white; 32 bits are rejected, because it is not defined which
    value is white.

    Raises:
        EmptyImageError: there are no bytes.
        ImageTooLargeError: there are more bytes or pixels than allowed.
        UndecodableImageError: the format is not supported, or the file is truncated or damaged.
    """
    if not data:
        raise EmptyImageError(f"The image is empty; send the bytes of a {_FORMATS_TEXT} file.")
    limits.check_bytes(len(data))
    check_decoding_cost(data)
    try:
        with Image.open(LimitedReads(data), formats=_FORMATS) as image:
            limits.check_size(image.size)
            pixels = _load(image, data)
            return _to_rgb(_upright(pixels, _orientation(image)))
    except (ImageTooLargeError, UndecodableImageError):
        raise
    except Image.DecompressionBombError:  # Pillow's own limit, until configure_libraries() removes it
        raise ImageTooLargeError(f"The image has too many pixels; at most {limits.max_pixels:,} are allowed.") from None
    except UnidentifiedImageError:
        raise UndecodableImageError(f"The bytes are not a {_FORMATS_TEXT} image, or its header is damaged.") from None
    except Exception as error:  # decoders raise any kind of error for damaged input
        raise UndecodableImageError(_damage_message(error)) from error


def _load(image: Image.Image, data: bytes) -> Image.Image:
    """The image with all its pixels, in its own mode. Data that is missing is an error in every format."""
    if image.format in _JPEG:
        return decode_jpeg(image, data)
    if image.format == "PNG":
        check_png_checksums(data)
    elif isinstance(image, TiffImagePlugin.TiffImageFile):
        check_tiff_jpeg(image, data)
    image.load()
    if image.format == "PNG":
        check_png_is_complete(image, data)
        scale_transparent_color(image, data)
    return image


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    transpose = _TRANSPOSE_BY_ORIENTATION.get(orientation)
    return image if transpose is None else image.transpose(transpose)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation of a loaded image; upright if there is none. With damaged EXIF data it may be any number.

    EXIF data may follow the pixels, and Pillow turns a TIFF upright while it loads it.
    """
    if len(image.info.get("exif", b"")) > _MAX_EXIF_BYTES:
        return _UPRIGHT
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, _UPRIGHT))
    except Exception:  # noqa: BLE001 - the parser raises any kind of error; damaged EXIF data is ignored
        return _UPRIGHT


def _to_rgb(image: Image.Image) -> PilImage:
    if image.mode in _MODES_32_BIT:
        raise UndecodableImageError("Images with 32 bits per channel are not supported; send 8 or 16 bits.")
    if image.mode.startswith("I;16"):
        values = np.asarray(image)
        pixels = _gray_levels(image)[values]  # convert() would clip at 255
        pixels[values == image.info.get("transparency", -1)] = 255
        return Image.fromarray(pixels).convert("RGB")
    return on_white(image)


def _gray_levels(image: Image.Image) -> NDArray[np.uint8]:
    """The 8-bit level of each 16-bit value: (65536,)."""
    white, white_is_zero = 65_535, False
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        white = 2 ** image.tag_v2.get(ExifTags.Base.BitsPerSample, (16,))[0] - 1
        white_is_zero = image.tag_v2.get(ExifTags.Base.PhotometricInterpretation) == _WHITE_IS_ZERO
    levels = np.rint(np.arange(65_536).clip(0, white) * (255 / white)).astype(np.uint8)
    return 255 - levels if white_is_zero else levels


def _damage_message(error: Exception) -> str:
    if "truncated" in str(error).lower() or isinstance(error, EOFError):
        return "The image is truncated: the end of the file is missing."
    return f"The image is damaged; send the bytes of a complete {_FORMATS_TEXT} file."
