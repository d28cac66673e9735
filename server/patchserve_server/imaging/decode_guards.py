"""The skeleton of a file, looked at before a decoder trusts it.

Decoders believe tables and repeated parts, so a small file can cost minutes or gigabytes. What no camera or editor
writes is refused here.
"""

from __future__ import annotations

import contextlib
import io
import re
import struct
from collections.abc import Iterator

from patchserve_server.domain.errors import UndecodableImageError

MAX_READS = 200_000
MAX_JPEG_SCANS = 32
MAX_JPEG_EXIF_SEGMENTS = 16
MAX_TIFF_VALUES = 250_000
MAX_TIFF_TILE_PIXELS = 2**24

# Start of scan with the only lengths that libjpeg takes: two bytes alone turn up in any long run of other data.
_JPEG_SCAN = re.compile(rb"\xff\xda\x00(?:\x06\x00|\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")
_TIFF_TABLES = (273, 279, 324, 325)  # offsets and byte counts of strips and tiles
_TIFF_TILE_SIDES = (322, 323)
_TIFF_NESTED = (34665, 34853, 40965)  # the directories of EXIF, GPS and interoperability
_TIFF_BLOBS = (1, 2, 7)  # bytes, text, undefined: read whole, not value by value
_OUTSIDE = (struct.error, OverflowError)  # of the file; of every file
_BMP_INFO_HEADER_BYTES = 40
_BMP_UNCOMPRESSED = (0, 3)  # BI_RGB, BI_BITFIELDS


class MeteredBytes(io.BytesIO):
    """An image's bytes as a file that may be read from in MAX_READS pieces only.

    Every segment, chunk, tag, strip and byte of junk costs a decoder in Python a read or more: a million of them, and
    a small file keeps a thread for a minute. An ordinary image of 30 MB takes a few thousand.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._reads_left = MAX_READS

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads_left -= 1
        if self._reads_left < 0:
            raise UndecodableImageError(f"The image is in more than {MAX_READS:,} pieces; it is not taken.")
        return super().read(size)


def check_structure(data: bytes) -> None:
    """Refuses a file whose skeleton is out of all proportion.

    Raises:
        UndecodableImageError: too many scans, EXIF segments, strips, tiles or tag values; a coding that is not taken.
    """
    if data.startswith(b"\xff\xd8"):
        _check_jpeg(data)
    elif data.startswith(b"BM"):
        _check_bmp(data)
    elif data[:2] in (b"II", b"MM"):
        _check_tiff(data)


def _check_jpeg(data: bytes) -> None:
    # Each scan costs a pass over the whole image, even an empty one of ten bytes.
    if sum(1 for _ in _JPEG_SCAN.finditer(data)) > MAX_JPEG_SCANS:
        raise UndecodableImageError(f"The JPEG has more than {MAX_JPEG_SCANS} scans; it is not taken.")
    # Pillow appends each segment to those before: quadratic.
    if data.count(b"Exif\0\0") > MAX_JPEG_EXIF_SEGMENTS:
        raise UndecodableImageError(f"The JPEG has more than {MAX_JPEG_EXIF_SEGMENTS} EXIF segments; it is not taken.")


def _check_bmp(data: bytes) -> None:
    if int.from_bytes(data[14:18], "little") >= _BMP_INFO_HEADER_BYTES:
        compression = int.from_bytes(data[30:34], "little")
        if compression not in _BMP_UNCOMPRESSED:
            raise UndecodableImageError("Compressed BMP files are not taken; send an uncompressed BMP or a PNG.")


def _check_tiff(data: bytes) -> None:
    order = "<" if data[:2] == b"II" else ">"
    # Pillow looks at this byte, and so takes a big-endian BigTIFF for a classic TIFF.
    tiff = _Tiff(data, order, big=data[2:3] == b"\x2b")
    values, tile_pixels, nested = 0, 1, []
    try:
        for tag, count, value in tiff.entries(tiff.first_directory()):
            values += count
            if tag in _TIFF_TILE_SIDES:
                tile_pixels *= max(1, value)
            elif tag in _TIFF_NESTED:
                nested.append(value)
    except _OUTSIDE:
        raise UndecodableImageError("The TIFF is truncated: its directory lies outside of the file.") from None
    if len(nested) > len(_TIFF_NESTED):
        raise UndecodableImageError("The TIFF names a nested directory twice; it is not taken.")
    for directory in nested:
        with contextlib.suppress(*_OUTSIDE):  # Pillow keeps what precedes the break
            for _, count, _ in tiff.entries(directory):
                values += count
    if values > MAX_TIFF_VALUES:
        raise UndecodableImageError(f"The TIFF has more than {MAX_TIFF_VALUES:,} strips, tiles or values in its tags.")
    if tile_pixels > MAX_TIFF_TILE_PIXELS:
        raise UndecodableImageError(f"The TIFF has tiles of more than {MAX_TIFF_TILE_PIXELS:,} pixels.")


class _Tiff:
    """The directories of a TIFF file, classic or BigTIFF."""

    def __init__(self, data: bytes, order: str, *, big: bool) -> None:
        self._data = data
        self._first = struct.Struct(order + ("8xQ" if big else "4xL"))
        self._count = struct.Struct(order + ("Q" if big else "H"))
        self._entry = struct.Struct(order + ("HHQ8s" if big else "HHL4s"))
        self._integers = {3: "H", 4: "L", 13: "L"} | ({16: "Q"} if big else {})  # short, long, IFD, long8
        self._order = order

    def first_directory(self) -> int:
        return int(self._first.unpack_from(self._data)[0])

    def entries(self, directory: int) -> Iterator[tuple[int, int, int]]:
        """Tag, how many values a decoder parses one by one, and the value of tile sides and nested directories."""
        (entries,) = self._count.unpack_from(self._data, directory)
        if entries > MAX_TIFF_VALUES:
            raise UndecodableImageError(f"The TIFF has more than {MAX_TIFF_VALUES:,} tags; it is not taken.")
        for number in range(entries):
            at = directory + self._count.size + number * self._entry.size
            tag, kind, count, field = self._entry.unpack_from(self._data, at)
            value = 0
            if tag in _TIFF_TILE_SIDES or tag in _TIFF_NESTED:
                if count != 1 or kind not in self._integers:
                    raise UndecodableImageError(f"Tag {tag} of the TIFF is no single number.")
                (value,) = struct.unpack_from(self._order + self._integers[kind], field)
            yield tag, 0 if kind in _TIFF_BLOBS and tag not in _TIFF_TABLES else count, value
