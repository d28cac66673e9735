"""JPEG files, decoded so that missing and damaged data is noticed.

libjpeg fills what is missing with gray and only warns; Pillow hides the warning. TurboJPEG reports it, and its pixels
are the same as Pillow's.
"""

from __future__ import annotations

import re
from typing import TypeAlias

import numpy as np
import simplejpeg
from PIL import Image

from patchserve_server.domain.errors import UndecodableImageError
from patchserve_server.imaging.jpeg_scans import has_all_scans
from patchserve_server.imaging.jpeg_segments import segments, without_metadata
from patchserve_server.imaging.pil_image import PilImage

_Size: TypeAlias = tuple[int, int]
_CHANNELS = 3
_UNKNOWN_LAYOUT = "Could not determine subsampling"
"""TurboJPEG does not know every layout that libjpeg decodes, such as 4:1:0, which nearly no encoder writes."""
_PADDING = re.compile(r"(\d+) extraneous bytes before marker 0xd9")
_END = b"\xff\xd9"
_MAX_JUNK_BYTES = 4
_MAX_ZERO_BYTES = 8
"""Zeros at the end of the pixel data, before the padding. Encoders write hardly any, because they fill up with ones."""
_HEADER_WARNING = re.compile(
    r"extraneous bytes before marker 0x(db|c[0-2]|e.|fe)|JFIF revision|Adobe color transform|ICC marker"
)
"""Warnings about headers from which no pixel depends. They hide later warnings, because only the first is reported."""
_CHEAPEST = {"min_height": 1, "min_width": 1, "min_factor": 8}
"""Decodes an eighth of each side; no data of a file is skipped."""


def decode_jpeg(image: Image.Image, data: bytes) -> PilImage:
    """The pixels of an opened JPEG file, in its own mode or in RGB.

    Raises:
        UndecodableImageError: data is missing or damaged.
    """
    if image.mode in ("L", "RGB"):
        width, height = image.size
        pixels = np.empty((height, width, _CHANNELS), np.uint8)
        if _check(data, image.size, image.size, colorspace="RGB", buffer=pixels):
            return Image.fromarray(pixels)
    else:  # Pillow inverts Adobe's CMYK
        check_jpeg(data, image.size, image.size)
    image.load()
    return image


def check_jpeg(data: bytes, smallest_px: _Size, largest_px: _Size) -> bool:
    """Check that no data of a JPEG is missing. Less work than decoding it: the pixels of one eighth of the size.

    Returns:
        Whether `decode_jpeg` gives the pixels of TurboJPEG, and not those of a more tolerant decoder.

    Raises:
        UndecodableImageError: data is missing or damaged, or the (width, height) is not between these two.
    """
    return _check(data, smallest_px, largest_px, **_CHEAPEST)


def _check(data: bytes, smallest_px: _Size, largest_px: _Size, **options: object) -> bool:
    """Decode strictly. Return whether it was decoded, and not just checked, or not even that in an unknown layout."""
    if not has_all_scans(data):
        raise UndecodableImageError("The image is truncated: it lacks some of its scans.")
    try:
        _decode(data, smallest_px, largest_px, **options)
    except ValueError as warning:
        message = str(warning)
        if _UNKNOWN_LAYOUT in message:
            return False
        if _HEADER_WARNING.search(message):
            _decode(without_metadata(data, segments(data)), smallest_px, largest_px, **_CHEAPEST)
            return False
        if "premature end" in message.lower():
            raise UndecodableImageError("The image is truncated: a part of its data is missing.") from None
        if not _is_padding(message, data):
            raise
    return True


def _decode(data: bytes, smallest_px: _Size, largest_px: _Size, **options: object) -> None:
    height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
    if width < smallest_px[0] or height < smallest_px[1]:
        raise UndecodableImageError("The image is truncated: it has fewer pixels than its header says.")
    if width > largest_px[0] or height > largest_px[1]:  # memory for them is allocated before any data is read
        raise UndecodableImageError("The image is damaged: it has more pixels than its header says.")
    has_four_channels = colorspace in ("CMYK", "YCCK")
    simplejpeg.decode_jpeg(data, **{"colorspace": "CMYK" if has_four_channels else "RGB"} | options)


def _is_padding(message: str, data: bytes) -> bool:
    """Whether the warning is about padding before the end, after all pixels; webcams write it.

    If data is missing and the file is filled up with zeros, libjpeg takes the first of them for pixels.
    """
    found = _PADDING.search(message)
    if found is None:
        return False
    padding_bytes = int(found[1])
    if bytes(padding_bytes + _MAX_ZERO_BYTES) + _END in data:
        return False
    return padding_bytes <= _MAX_JUNK_BYTES or bytes(padding_bytes) + _END in data
