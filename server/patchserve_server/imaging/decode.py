"""Encoded images to upright RGB images. Limits are checked before any pixel is decoded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from PIL import ExifTags, Image, ImageFile, TiffImagePlugin, UnidentifiedImageError

from patchserve_server.domain.errors import (
    EmptyImageError,
    ImageTooLargeError,
    UndecodableImageError,
)
from patchserve_server.domain.images import SentImage
from patchserve_server.imaging.decode_guards import LimitedReads, check_decoding_cost
from patchserve_server.imaging.jpeg import decode_jpeg
from patchserve_server.imaging.limits import ImageLimits
from patchserve_server.imaging.pil_image import PilImage, to_rgb_array
from patchserve_server.imaging.png import encode_png
from patchserve_server.imaging.png_guard import check_png_checksums, check_png_is_complete
from patchserve_server.imaging.raw_frames import to_rgb
from patchserve_server.imaging.sixteen_bits import name_plane_samples, to_eight_bits
from patchserve_server.imaging.tiff_jpeg import check_tiff_jpeg
from patchserve_server.imaging.transparency import on_white, scale_transparent_color

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
_FORMATS_TEXT = "JPEG, PNG, WebP, BMP or TIFF"
JPEG_FORMATS = ("JPEG", "MPO")  # MPO: several JPEGs in one file; only the first one counts
_MAX_EXIF_BYTES = 2**20
_MODES_32_BIT = ("I", "F")
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
    """Decode an encoded file, or convert the frame of a camera.

    Raises:
        InvalidImageError: as for `decode_image`, and for `to_rgb`.
    """
    if isinstance(image.content, bytes):
        return decode_image(image.content, limits, image.white_level)
    limits.check_size(image.content.size_px)
    return Image.fromarray(to_rgb(image.content, image.white_level))


def to_png(image: SentImage, limits: ImageLimits) -> bytes:
    """The image as a PNG with 8 bits per sample.

    Raises:
        InvalidImageError: as for `open_image`.
    """
    return encode_png(to_rgb_array(open_image(image, limits)))


def decode_image(data: bytes, limits: ImageLimits, white_level: int | None = None) -> PilImage:
    """Decode the first frame of an image file and apply its EXIF orientation.

    Transparent parts become white. Color profiles are ignored, as in the notebook's convert("RGB"). More than 8 bits
    per sample are scaled to 8 so that white stays white; 32 bits are rejected, because it is not defined which value is
    white.

    Args:
        data: the file.
        limits: of its size.
        white_level: the value that is white in samples of 16 bits; None: what the file says. Others know it themselves.

    Raises:
        EmptyImageError: there are no bytes.
        ImageTooLargeError: there are more bytes or pixels than allowed.
        UndecodableImageError: the format is not supported, or the file is truncated or damaged.
    """
    with opened_file(data, limits) as image:
        pixels = _load(image, data, white_level)
        return on_white(upright(pixels, orientation_of(image)))


@contextmanager
def opened_file(data: bytes, limits: ImageLimits) -> Iterator[ImageFile.ImageFile]:
    """An image file whose size is known to be allowed, and no pixel decoded yet. Converts errors of decoders.

    Raises:
        EmptyImageError, ImageTooLargeError, UndecodableImageError: as `decode_image`.
    """
    if not data:
        raise EmptyImageError(f"The image is empty; send the bytes of a {_FORMATS_TEXT} file.")
    limits.check_bytes(len(data))
    check_decoding_cost(data)
    try:
        with Image.open(LimitedReads(data), formats=_FORMATS) as image:
            limits.check_size(image.size)
            yield image
    except (ImageTooLargeError, UndecodableImageError):
        raise
    except Image.DecompressionBombError:  # Pillow's own limit, until configure_libraries() removes it
        raise ImageTooLargeError(f"The image has too many pixels; at most {limits.max_pixels:,} are allowed.") from None
    except UnidentifiedImageError:
        raise UndecodableImageError(_unknown_message(data)) from None
    except Exception as error:  # decoders raise any kind of error for damaged input
        raise UndecodableImageError(_damage_message(error)) from error


def _load(image: ImageFile.ImageFile, data: bytes, white_level: int | None) -> Image.Image:
    """The image with all its pixels, 8 bits per sample. Data that is missing is an error in every format."""
    if image.format in JPEG_FORMATS:
        return decode_jpeg(image, data)
    if image.format == "PNG":
        check_png_checksums(data)
    elif isinstance(image, TiffImagePlugin.TiffImageFile):
        check_tiff_jpeg(image, data)
        name_plane_samples(image)
    image.load()
    if image.mode in _MODES_32_BIT:
        raise UndecodableImageError("Images with 32 bits per channel are not supported; send 8 or 16 bits.")
    if image.format == "PNG":
        check_png_is_complete(image, data)
        scale_transparent_color(image, data)
    return to_eight_bits(image, data, white_level)


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """The image, turned as its EXIF orientation says; unchanged for a number that EXIF does not know."""
    transpose = _TRANSPOSE_BY_ORIENTATION.get(orientation)
    return image if transpose is None else image.transpose(transpose)


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation of a loaded image; upright if there is none. With damaged EXIF data it may be any number.

    EXIF data may follow the pixels, and Pillow turns a TIFF upright while it loads it.
    """
    if len(image.info.get("exif", b"")) > _MAX_EXIF_BYTES:
        return _UPRIGHT
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, _UPRIGHT))
    except Exception:  # noqa: BLE001 - the parser raises any kind of error; damaged EXIF data is ignored
        return _UPRIGHT


def _unknown_message(data: bytes) -> str:
    if data[:2] in (b"II", b"MM"):
        return "The TIFF is damaged or not supported; send gray or RGB with 8 or 16 bits per sample, or a PNG."
    return f"The bytes are not a {_FORMATS_TEXT} image, or its header is damaged."


def _damage_message(error: Exception) -> str:
    if "truncated" in str(error).lower() or isinstance(error, EOFError):
        return "The image is truncated: the end of the file is missing."
    return f"The image is damaged; send the bytes of a complete {_FORMATS_TEXT} file."
