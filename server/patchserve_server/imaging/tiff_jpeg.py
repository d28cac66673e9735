"""TIFF files that are compressed as JPEG: each strip or tile is a JPEG, and libtiff accepts damaged ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from PIL.TiffImagePlugin import (
    COMPRESSION,
    IMAGELENGTH,
    IMAGEWIDTH,
    JPEGTABLES,
    ROWSPERSTRIP,
    STRIPBYTECOUNTS,
    STRIPOFFSETS,
    TILEBYTECOUNTS,
    TILELENGTH,
    TILEOFFSETS,
    TILEWIDTH,
    ImageFileDirectory_v2,
    TiffImageFile,
)

from patchserve_server.domain.errors import UndecodableImageError
from patchserve_server.imaging.decode_guards import check_decoding_cost
from patchserve_server.imaging.jpeg import check_jpeg

_JPEG = 7
_MARKER_BYTES = 2  # the end of the tables, and the start of each part, which follow each other in one file
_MAX_TABLES_BYTES = 4096  # all tables that a JPEG can have take less
_BLOCK_PX = 16  # encoders may fill the last block of a strip


class _Part(NamedTuple):
    """A strip or a tile: where its bytes are, and its (width, height)."""

    start: int
    end: int
    smallest_px: tuple[int, int]
    largest_px: tuple[int, int]


def check_tiff_jpeg(image: TiffImageFile, data: bytes) -> None:
    """Check that no data of a TIFF's strips or tiles is missing, if they are JPEGs.

    Raises:
        UndecodableImageError: data is missing or damaged, or costs far more time or memory than its size justifies.
    """
    tags = image.tag_v2
    if tags.get(COMPRESSION) != _JPEG:
        return
    tables = bytes(tags.get(JPEGTABLES, b""))[:-_MARKER_BYTES]
    parts = list(_parts(tags))
    # Each part is copied with the tables, so a small file could name the same bytes a thousand times.
    if len(tables) > _MAX_TABLES_BYTES or sum(part.end - part.start for part in parts) > len(data):
        raise UndecodableImageError("The TIFF is damaged: its JPEG tables are too large, or its strips overlap.")
    for part in parts:
        jpeg = data[part.start : part.end]
        if tables:
            jpeg = tables + jpeg[_MARKER_BYTES:]
        check_decoding_cost(jpeg)
        check_jpeg(jpeg, part.smallest_px, part.largest_px)


def _parts(tags: ImageFileDirectory_v2) -> Iterator[_Part]:
    width, height = tags[IMAGEWIDTH], tags[IMAGELENGTH]
    if TILEOFFSETS in tags:
        size_px = (tags[TILEWIDTH], tags[TILELENGTH])
        for offset, count in zip(tags[TILEOFFSETS], tags[TILEBYTECOUNTS], strict=True):
            yield _Part(offset, offset + count, size_px, size_px)
        return
    rows = max(1, min(tags.get(ROWSPERSTRIP, height), height))
    largest_px = (width, -(-rows // _BLOCK_PX) * _BLOCK_PX)
    tops = range(0, height, rows)
    for index, (offset, count) in enumerate(zip(tags[STRIPOFFSETS], tags[STRIPBYTECOUNTS], strict=True)):
        top = tops[index % len(tops)]  # with separate planes, the strips of the next one follow
        yield _Part(offset, offset + count, (width, min(rows, height - top)), largest_px)
