"""How many bits the samples of an image file have, and which value is white in them."""

from __future__ import annotations

import struct
from typing import Final

from PIL import Image
from PIL.ExifTags import Base
from PIL.TiffImagePlugin import TiffImageFile

from patchserve_server.imaging.png_guard import png_chunks

SIXTEEN_BITS: Final = 16
MAX_SAMPLE: Final = 2**SIXTEEN_BITS - 1

_EIGHT_BITS: Final = 8
_PNG_DEPTH_AT: Final = 24
_PNG_DEPTH: Final = struct.Struct(f">{_PNG_DEPTH_AT}xBB")  # bits per sample, color type
_COLORS: Final = {0: 1, 2: 3, 4: 1, 6: 3}  # samples of a PNG's pixel, without alpha, by color type
_ALPHAS: Final = {0: 0, 2: 0, 4: 1, 6: 1}
_MAX_SAMPLE_VALUE: Final = 281  # a tag of TIFF


def may_have_16_bits(data: bytes) -> bool:
    """Whether a white level can change how a file is read, by its first bytes."""
    is_deep_png = data.startswith(b"\x89PNG") and data[_PNG_DEPTH_AT : _PNG_DEPTH_AT + 1] == bytes([SIXTEEN_BITS])
    return is_deep_png or data.startswith((b"II", b"MM"))


def bits_per_sample(image: Image.Image, data: bytes) -> int:
    """The bits that a sample takes in an open file: 16, or 12 in some TIFFs; 8 stands for 8 and fewer."""
    if image.format == "PNG":
        bits = _PNG_DEPTH.unpack_from(data)[0]
    elif isinstance(image, TiffImageFile):
        bits = image.tag_v2.get(Base.BitsPerSample, (_EIGHT_BITS,))[0]
    else:
        return _EIGHT_BITS
    return max(_EIGHT_BITS, int(bits))


def white_level_of(image: Image.Image, data: bytes, brightest: int, requested: int | None) -> int:
    """The value that is white in an open file with more than 8 bits per sample.

    Samples of 12 bits say it themselves. In samples of 16 bits it is what the caller says, else what the file says,
    else the largest value. A file that says that 12 bits are significant holds the values of a camera as they are, up
    to 4,095, or scaled to 16 bits, as the definition of PNG wants them: the brightest value tells which.

    Args:
        image: the file.
        data: its bytes.
        brightest: the largest value of a color in it, or a little more.
        requested: the caller's white level; None: none.
    """
    bits = bits_per_sample(image, data)
    if bits < SIXTEEN_BITS:
        return int(2**bits - 1)
    if requested is not None:
        return requested
    significant = _significant_bits(image, data)
    largest = 2**significant - 1
    return largest if brightest <= largest else MAX_SAMPLE


def _significant_bits(image: Image.Image, data: bytes) -> int:
    """As the file says it: 8 to 16."""
    bits = _tiff_significant_bits(image) if isinstance(image, TiffImageFile) else _png_significant_bits(data)
    return bits if _EIGHT_BITS <= bits <= SIXTEEN_BITS else SIXTEEN_BITS


def _png_significant_bits(data: bytes) -> int:
    """The most bits that the first chunk sBIT gives to a color; 0: there is none, or it does not fit the image."""
    color_type = _PNG_DEPTH.unpack_from(data)[1]
    for chunk in png_chunks(data):
        if chunk.kind == b"IDAT":
            break
        if chunk.kind == b"sBIT":
            colors = _COLORS[color_type]
            return max(chunk.body[:colors]) if len(chunk.body) == colors + _ALPHAS[color_type] else 0
    return 0


def _tiff_significant_bits(image: TiffImageFile) -> int:
    """From the tag MaxSampleValue, if it is the largest value of some depth; else 0.

    By its definition the tag is a statistic of the image. Any other value is one, and says nothing about white.
    """
    values = image.tag_v2.get(_MAX_SAMPLE_VALUE)
    values = values if isinstance(values, tuple) else (values,)
    depths = {2**bits - 1: bits for bits in range(_EIGHT_BITS, SIXTEEN_BITS + 1)}
    return max((depths.get(value, 0) if isinstance(value, int) else 0 for value in values), default=0)
