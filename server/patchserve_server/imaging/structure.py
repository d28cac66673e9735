"""The skeleton of a file, read before a decoder sees it.

Decoders trust tables and repeated parts, so a small file can cost minutes or gigabytes. What no camera or editor writes
is refused here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from patchserve_server.domain.errors import UndecodableImageError

MAX_PARTS = 20_000
MAX_JPEG_SEGMENTS = 2_000
MAX_JPEG_SCANS = 32
MAX_TIFF_TILE_PIXELS = 2**24

_JPEG_SCAN = b"\xff\xda"
_TIFF_TABLES = (273, 279, 324, 325)  # offsets and byte counts of strips and tiles
_TIFF_TILE_SIDES = (322, 323)
_TIFF_SHORT = 3
_TIFF_BIG_VERSION = 43
_BMP_INFO_HEADER_BYTES = 40
_BMP_UNCOMPRESSED = (0, 3)  # BI_RGB, BI_BITFIELDS


def check_structure(data: bytes) -> None:
    """Refuses a file whose skeleton is out of all proportion.

    Raises:
        UndecodableImageError: too many segments, scans, chunks, strips or tiles, or a coding that is not taken.
    """
    if data.startswith(b"\xff\xd8"):
        _check_jpeg(data)
    elif data.startswith(b"\x89PNG"):
        _check_parts(_png_chunks(data), MAX_PARTS, "PNG chunks")
    elif data.startswith(b"BM"):
        _check_bmp(data)
    elif data[:2] in (b"II", b"MM"):
        _check_tiff(data)


def _check_parts(parts: Iterator[int], most: int, what: str) -> None:
    for count, _ in enumerate(parts, start=1):
        if count > most:
            raise UndecodableImageError(f"The picture has more than {most:,} {what}; it is not taken.")


def _check_jpeg(data: bytes) -> None:
    # Inside coded data 0xFF is always followed by 0x00, so this counts markers only.
    if data.count(_JPEG_SCAN) > MAX_JPEG_SCANS:
        raise UndecodableImageError(f"The JPEG has more than {MAX_JPEG_SCANS} scans; it is not taken.")
    _check_parts(_jpeg_segments(data), MAX_JPEG_SEGMENTS, "JPEG segments")


def _jpeg_segments(data: bytes) -> Iterator[int]:
    """Where the segments before the first scan begin."""
    position = 2
    while data[position : position + 1] == b"\xff" and data[position + 1 : position + 2] != _JPEG_SCAN[1:]:
        yield position
        position += 2 + max(2, int.from_bytes(data[position + 2 : position + 4]))


def _png_chunks(data: bytes) -> Iterator[int]:
    position = 8
    while position + 8 <= len(data):
        yield position
        position += 12 + int.from_bytes(data[position : position + 4])


def _check_bmp(data: bytes) -> None:
    if int.from_bytes(data[14:18], "little") >= _BMP_INFO_HEADER_BYTES:
        compression = int.from_bytes(data[30:34], "little")
        if compression not in _BMP_UNCOMPRESSED:
            raise UndecodableImageError("Compressed BMP files are not taken; send an uncompressed BMP or a PNG.")


def _check_tiff(data: bytes) -> None:
    try:
        tile_pixels = 1
        for tag, count, value in _tiff_entries(data):
            if tag in _TIFF_TABLES and count > MAX_PARTS:
                raise UndecodableImageError(f"The TIFF has more than {MAX_PARTS:,} strips or tiles; it is not taken.")
            if tag in _TIFF_TILE_SIDES:
                tile_pixels *= value
        if tile_pixels > MAX_TIFF_TILE_PIXELS:
            raise UndecodableImageError(f"The TIFF has tiles of more than {MAX_TIFF_TILE_PIXELS:,} pixels.")
    except struct.error:
        raise UndecodableImageError("The TIFF is truncated: its directory lies outside of the file.") from None


def _tiff_entries(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Tag, count and (short or long) value of the first directory's entries."""
    order = "<" if data[:2] == b"II" else ">"
    (version,) = struct.unpack_from(order + "H", data, 2)
    big = version == _TIFF_BIG_VERSION
    (directory,) = struct.unpack_from(order + ("Q" if big else "L"), data, 8 if big else 4)
    (entries,) = struct.unpack_from(order + ("Q" if big else "H"), data, directory)
    if entries > MAX_PARTS:
        raise UndecodableImageError(f"The TIFF has more than {MAX_PARTS:,} tags; it is not taken.")
    first, size, layout = (directory + 8, 20, "HHQ") if big else (directory + 2, 12, "HHL")
    for number in range(entries):
        at = first + number * size
        tag, kind, count = struct.unpack_from(order + layout, data, at)
        value_at = at + struct.calcsize(order + layout)
        (value,) = struct.unpack_from(order + ("H" if kind == _TIFF_SHORT else "L"), data, value_at)
        yield tag, count, value
