"""Checks of PNG files (ISO/IEC 15948) that Pillow leaves out: whether the pixel data is undamaged and complete."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from isal import isal_zlib
from PIL import Image

from patchserve_server.domain.errors import UndecodableImageError

_SIGNATURE_BYTES = 8
_HEADER = struct.Struct(">I4s")
_CRC = struct.Struct(">I")
_SIZE_AND_FORMAT = struct.Struct(">IIBBxxB")
_SIZE_AND_FORMAT_AT = _SIGNATURE_BYTES + _HEADER.size
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # per pixel, by color type
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""The passes of an interlaced image: (left, top, step right, step down)."""
_MAX_STEP_BYTES = 2**20


def check_png_checksums(data: bytes) -> None:
    """Check the CRC of every chunk of pixel data.

    Raises:
        UndecodableImageError: one is wrong, or the file ends in such a chunk.
    """
    for chunk in _data_chunks(data):
        if isal_zlib.crc32(chunk.body, isal_zlib.crc32(chunk.kind)) != chunk.checksum:
            raise UndecodableImageError("The PNG is damaged: the checksum of its pixel data is wrong.")


def check_png_is_complete(image: Image.Image, data: bytes) -> None:
    """Check that the pixel data of a loaded image had all rows. Pillow leaves missing ones black.

    Raises:
        UndecodableImageError: there are fewer rows than the header says.
    """
    width, height = image.size
    last_rows = np.asarray(image.crop((0, max(0, height - 2), width, height)))  # two, since rows may be interlaced
    if all(row.any() for row in last_rows):
        return
    missing = _expected_bytes(data)
    inflater = isal_zlib.decompressobj()
    for chunk in _data_chunks(data):
        compressed = bytes(chunk.body)
        while compressed and missing > 0 and not inflater.eof:
            missing -= len(inflater.decompress(compressed, _MAX_STEP_BYTES))
            compressed = inflater.unconsumed_tail
    if missing > 0:
        raise UndecodableImageError("The image is truncated: it has fewer pixels than its header says.")


class PngChunk(NamedTuple):
    """A part of a PNG file."""

    kind: bytes  # such as b"IDAT"
    body: memoryview
    checksum: int  # as the file says it


def png_chunks(data: bytes) -> Iterator[PngChunk]:
    """The chunks of a PNG file that are complete, up to its end.

    Raises:
        UndecodableImageError: the file ends in a chunk of pixel data.
    """
    view, start = memoryview(data), _SIGNATURE_BYTES
    while start + _HEADER.size <= len(data):
        length, kind = _HEADER.unpack_from(data, start)
        body = start + _HEADER.size
        end = body + length + _CRC.size
        if kind == b"IEND":
            return
        if end <= len(data):
            yield PngChunk(kind, view[body : body + length], _CRC.unpack_from(data, body + length)[0])
        elif kind == b"IDAT":
            raise UndecodableImageError("The image is truncated: the end of the file is missing.")
        start = end


def _data_chunks(data: bytes) -> Iterator[PngChunk]:
    return (chunk for chunk in png_chunks(data) if chunk.kind == b"IDAT")


def _expected_bytes(data: bytes) -> int:
    width, height, depth, color_type, interlaced = _SIZE_AND_FORMAT.unpack_from(data, _SIZE_AND_FORMAT_AT)
    bits = depth * _SAMPLES[color_type]
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    total = 0
    for left, top, step_x, step_y in passes:
        columns, rows = -(-(width - left) // step_x), -(-(height - top) // step_y)
        if columns > 0 and rows > 0:
            total += rows * (1 + -(-columns * bits // 8))  # each row begins with its filter
    return total
