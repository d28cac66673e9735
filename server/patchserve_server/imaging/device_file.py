"""JPEG files that a device may decode: checked as strictly as those that are decoded here, and without metadata."""

from __future__ import annotations

from itertools import islice
from typing import Final

import simplejpeg

from patchserve_server.domain.images import SentImage
from patchserve_server.domain.jpeg_file import ORIENTATIONS, JpegFile
from patchserve_server.imaging.decode import JPEG_FORMATS, opened_file, orientation_of
from patchserve_server.imaging.device_scans import has_plain_scans
from patchserve_server.imaging.jpeg import check_jpeg
from patchserve_server.imaging.jpeg_segments import SCAN, Segment, segments, without_metadata
from patchserve_server.imaging.limits import ImageLimits

MAX_DEVICE_PIXELS: Final = 32 * 2**20
"""Decoded, an image of so many pixels takes 96 MiB. The CPU decodes larger ones."""
_START: Final = b"\xff\xd8"
_MAX_SEGMENTS: Final = 1000
_MARK: Final = b"\xff"
_BYTES_PER_MARK: Final = 16  # pixel data have a few in 1000 bytes; a file full of them takes seconds to search
_FEW_MARKS: Final = 2**16
_KNOWN: Final = frozenset({0xC4, 0xD9, 0xDB, 0xDD, *range(0xE0, 0xF0), 0xFE, SCAN})
"""Tables, the end, metadata, scans: a file with a segment of another kind is not for a device."""
_BASELINE: Final = 0xC0
"""Progressive files stay with the CPU: a device would read their scans with one of the threads that feed it."""
_PRECISION_BITS: Final = 8
_SUBSAMPLINGS: Final = {"YCbCr": ("444", "422", "420", "440", "411"), "Gray": ("Gray",)}
_COMPONENTS: Final = {b"\1\2\3": "YCbCr", b"\1": "Gray"}
"""What a file without metadata is taken for, by the ids of its components."""
_ONE_SAMPLE: Final = 0x11
"""The sampling factors of chroma, or of gray alone. With others, decoders disagree about the layout."""


def device_file(image: SentImage, limits: ImageLimits) -> JpegFile | None:
    """The file for a device, if it is a JPEG whose every pixel is certain: all decoders read the same from it.

    None: the CPU has to decode it, or refuse it.

    Raises:
        InvalidImageError: as `open_image`, with the same words.
    """
    data = image.content
    if not isinstance(data, bytes) or not data.startswith(_START):
        return None
    with opened_file(data, limits) as opened:
        width, height = opened.size
        if opened.format not in JPEG_FORMATS or width * height > MAX_DEVICE_PIXELS:
            return None
        if data.count(_MARK) > len(data) // _BYTES_PER_MARK + _FEW_MARKS:
            return None
        found = list(islice(segments(data), _MAX_SEGMENTS))
        if not _is_for_devices(data, found) or not check_jpeg(data, opened.size, opened.size):
            return None
        orientation = orientation_of(opened)
    return JpegFile(without_metadata(data, found), (width, height), orientation if orientation in ORIENTATIONS else 1)


def _is_for_devices(data: bytes, found: list[Segment]) -> bool:
    frames = [segment for segment in found if segment.marker not in _KNOWN]
    if len(found) == _MAX_SEGMENTS or len(frames) != 1 or frames[0].marker != _BASELINE:
        return False
    frame = frames[0].body
    color = _COMPONENTS.get(frame[6::3])
    if color is None or frame[0] != _PRECISION_BITS or set(frame[10::3] or frame[7::3]) - {_ONE_SAMPLE}:
        return False
    try:
        _, _, stored_color, subsampling = simplejpeg.decode_jpeg_header(data)
    except ValueError:  # a layout that TurboJPEG does not know
        return False
    return stored_color == color and subsampling in _SUBSAMPLINGS[color] and has_plain_scans(data, found)
