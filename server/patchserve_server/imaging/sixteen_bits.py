"""Images with more than 8 bits per sample, scaled to 8.

Pillow has no mode for colors of 16 bits: it keeps the high byte of each sample. So the low bytes are read in a second
pass, by the same decoder and behind the same guards: they are the high bytes of the other byte order.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile
from PIL.ExifTags import Base
from PIL.TiffImagePlugin import PLANAR_CONFIGURATION, TiffImageFile

from patchserve_server.domain.errors import UndecodableImageError
from patchserve_server.imaging.bands import row_bands
from patchserve_server.imaging.decode_guards import LimitedReads
from patchserve_server.imaging.sample_depth import MAX_SAMPLE, SIXTEEN_BITS, bits_per_sample, white_level_of

_BAND_ROWS: Final = 256
_SEPARATE_PLANES: Final = 2
_WHITE_IS_ZERO: Final = 0
_GRAY_MODE: Final = "I;16"  # or I;16B
_GRAY_AND_ALPHA, _AS_FOUR_BYTES = "LA;16B", "RGBA"
_OTHER_ORDER: Final = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}  # N: this machine's
_LOW_BYTES: Final = {
    f"{samples};16{order}": f"{samples};16{other}"
    for samples in ("RGB", "RGBA", "RGBX", *"RGBA")
    for order, other in _OTHER_ORDER.items()
} | {_GRAY_AND_ALPHA: _AS_FOUR_BYTES}


def name_plane_samples(image: ImageFile.ImageFile) -> None:
    """Before a TIFF with separate planes of 16 bits is loaded: Pillow would read their samples as if they had 8."""
    if not isinstance(image, TiffImageFile) or not _has_planes(image):
        return
    if image.tag_v2.get(Base.BitsPerSample, (8,))[0] == SIXTEEN_BITS:
        order = "L" if image.tag_v2.prefix == b"II" else "B"
        _rename_samples(image, {plane: f"{plane};16{order}" for plane in "RGBA"})


def to_eight_bits(image: ImageFile.ImageFile, data: bytes, white_level: int | None) -> Image.Image:
    """A loaded image with 8 bits per sample, in which white is white.

    Args:
        image: the loaded file; it may be changed.
        data: its bytes.
        white_level: the value that is white in samples of 16 bits, for the caller; None: what the file says.

    Raises:
        UndecodableImageError: this layout of colors can be read, but not with this white level.
    """
    if bits_per_sample(image, data) <= 8:  # noqa: PLR2004
        return image
    if image.mode.startswith(_GRAY_MODE):
        brightest = int(np.asarray(image).max())
        levels = eight_bit_levels(white_level_of(image, data, brightest, white_level), is_inverted=_is_inverted(image))
        return _scaled(image, None, levels)
    brightest = MAX_SAMPLE
    if image.mode in ("RGB", "RGBA"):
        brightest = int(np.max([image.getchannel(color).getextrema() for color in "RGB"])) << 8 | 0xFF
    white = white_level_of(image, data, brightest, white_level)
    low = _low_bytes(data)
    if low is not None:
        return _scaled(image, low, eight_bit_levels(white))
    if white != MAX_SAMPLE:
        message = (
            "Only the high bytes of this TIFF's colors can be read, so its white level cannot be "
            f"{white}. Store gray or RGB without planes and without premultiplied alpha."
        )
        raise UndecodableImageError(message)
    return image


def _low_bytes(data: bytes) -> Image.Image | None:
    """The low bytes of all samples, in the mode of the high ones; None: this layout has no way to read them."""
    with Image.open(LimitedReads(data), formats=("PNG", "TIFF")) as image:
        name_plane_samples(image)
        rawmodes = {_rawmode(tile.args) for tile in image.tile}
        by_libtiff = any(tile.codec_name == "libtiff" for tile in image.tile)  # reads planes in its own way
        if (by_libtiff and _has_planes(image)) or not _LOW_BYTES.keys() >= set(rawmodes):
            return None
        _rename_samples(image, _LOW_BYTES)
        image.load()
    if _GRAY_AND_ALPHA not in rawmodes:
        return image
    _, gray, _, alpha = image.split()
    return Image.merge("RGBA", (gray, gray, gray, alpha))


def _scaled(image: Image.Image, low: Image.Image | None, levels: NDArray[np.uint8]) -> Image.Image:
    """Each sample replaced by its level; a transparent color by white. In bands, which need little more memory."""
    transparent = image.info.pop("transparency", None)
    scaled = Image.new("L", image.size) if low is None else image
    width, height = image.size
    for rows in row_bands(height, _BAND_ROWS):
        box = (0, rows.start, width, rows.stop)
        values = np.asarray(image.crop(box)).astype(np.uint16)  # (rows, W) or (rows, W, C)
        if low is not None:
            values = values << 8 | np.asarray(low.crop(box))
        pixels = cv2.LUT(values, levels)  # four times as fast as levels[values]
        if transparent is not None:
            is_transparent = values == transparent
            pixels[is_transparent if low is None else is_transparent.all(axis=-1)] = 255
        scaled.paste(Image.fromarray(pixels), box)
    return scaled


def eight_bit_levels(white: int, *, is_inverted: bool = False) -> NDArray[np.uint8]:
    """The 8-bit level of each 16-bit value: (65536,)."""
    levels = np.rint(np.arange(MAX_SAMPLE + 1).clip(0, white) * (255 / white)).astype(np.uint8)
    return 255 - levels if is_inverted else levels


def _is_inverted(image: Image.Image) -> bool:
    return isinstance(image, TiffImageFile) and image.tag_v2.get(Base.PhotometricInterpretation) == _WHITE_IS_ZERO


def _has_planes(image: Image.Image) -> bool:
    return isinstance(image, TiffImageFile) and image.tag_v2.get(PLANAR_CONFIGURATION) == _SEPARATE_PLANES


def _rename_samples(image: ImageFile.ImageFile, names: Mapping[str, str]) -> None:
    """Before an image is loaded: replace these layouts of its samples by others."""
    for index, tile in enumerate(image.tile):
        rawmode = _rawmode(tile.args)
        new = names.get(rawmode, rawmode)
        image.tile[index] = tile._replace(args=(new, *tile.args[1:]) if isinstance(tile.args, tuple) else new)


def _rawmode(args: tuple[Any, ...] | str | None) -> str:
    """The layout of samples, from the arguments of Pillow's decoder."""
    return str(args[0] if isinstance(args, tuple) else args)
