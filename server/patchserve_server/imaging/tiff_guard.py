"""Checks the directories of a TIFF file, classic or BigTIFF, before a decoder reads it."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from typing import NamedTuple

from patchserve_server.domain.errors import UndecodableImageError

MAX_TIFF_VALUES = 250_000
MAX_TIFF_TILE_PIXELS = 2**24

_TABLES = (273, 279, 324, 325)  # offsets and byte counts of strips and tiles
_TILE_SIDES = (322, 323)
_NESTED_DIRECTORIES = (34665, 34853, 40965)  # EXIF, GPS, interoperability
_BLOB_TYPES = (1, 2, 7)  # bytes, text, undefined: decoders read all values at once
_SHORT, _LONG, _IFD, _LONG8 = 3, 4, 13, 16
_OUTSIDE_FILE = (struct.error, OverflowError)  # raised if an offset is outside the file


def check_tiff(data: bytes) -> None:
    """Reject a TIFF that would take far more time or memory to decode than its size justifies.

    Raises:
        UndecodableImageError: too many strips, tiles or tag values, too large tiles, or a damaged directory.
    """
    tiff = _Tiff(data)
    nested: list[int] = []
    values, tile_pixels = 0, 1
    try:
        for entry in tiff.entries(tiff.first_directory()):
            values += entry.parsed_values
            if entry.tag in _NESTED_DIRECTORIES:
                nested.append(entry.value)
            elif entry.tag in _TILE_SIDES:
                tile_pixels *= max(1, entry.value)
                _check_count(tile_pixels, MAX_TIFF_TILE_PIXELS, "pixels per tile")
    except _OUTSIDE_FILE:
        raise UndecodableImageError("The TIFF is truncated: its directory is outside the file.") from None
    _check_count(len(nested), len(_NESTED_DIRECTORIES), "nested directories")
    for directory in nested:
        with contextlib.suppress(*_OUTSIDE_FILE):  # Pillow uses the entries before a damaged one
            for entry in tiff.entries(directory):
                values += entry.parsed_values
    _check_count(values, MAX_TIFF_VALUES, "strips, tiles or tag values")


def _check_count(count: int, limit: int, counted: str) -> None:
    if count > limit:
        raise UndecodableImageError(f"The TIFF has too many {counted}; at most {limit:,} are supported.")


class _Entry(NamedTuple):
    tag: int
    parsed_values: int  # how many values a decoder parses individually
    value: int  # only of tile sides and nested directories, otherwise 0


class _Tiff:
    def __init__(self, data: bytes) -> None:
        order = "<" if data[:2] == b"II" else ">"
        # Pillow checks this byte in either order, so it reads a big-endian BigTIFF as a classic TIFF.
        big = data[2:3] == b"\x2b"
        self._data = data
        self._order = order
        self._first = struct.Struct(order + ("8xQ" if big else "4xL"))
        self._count = struct.Struct(order + ("Q" if big else "H"))
        self._entry = struct.Struct(order + ("HHQ8s" if big else "HHL4s"))
        self._integer_formats = {_SHORT: "H", _LONG: "L", _IFD: "L"} | ({_LONG8: "Q"} if big else {})

    def first_directory(self) -> int:
        return int(self._first.unpack_from(self._data)[0])

    def entries(self, directory: int) -> Iterator[_Entry]:
        (entry_count,) = self._count.unpack_from(self._data, directory)
        _check_count(entry_count, MAX_TIFF_VALUES, "tags")
        for number in range(entry_count):
            offset = directory + self._count.size + number * self._entry.size
            tag, kind, count, field = self._entry.unpack_from(self._data, offset)
            value = self._number(tag, kind, count, field) if tag in _TILE_SIDES + _NESTED_DIRECTORIES else 0
            yield _Entry(tag, 0 if kind in _BLOB_TYPES and tag not in _TABLES else count, value)

    def _number(self, tag: int, kind: int, count: int, field: bytes) -> int:
        if count != 1 or kind not in self._integer_formats:
            raise UndecodableImageError(f"TIFF tag {tag} must be a single integer.")
        return int(struct.unpack_from(self._order + self._integer_formats[kind], field)[0])
