"""TIFF files that are compressed as JPEG: each strip or tile is a JPEG, and libtiff accepts damaged ones."""

from __future__ import annotations

from collections.abc import Iterator

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

from patchserve_server.imaging.jpeg import check_jpeg

_JPEG = 7
_MARKER_BYTES = 2  # the end of the tables, and the start of each part, which follow each other in one file


def check_tiff_jpeg(image: TiffImageFile, data: bytes) -> None:
    """Check that no data of a TIFF's strips or tiles is missing, if they are JPEGs.

    Raises:
        UndecodableImageError: data is missing or damaged.
    """
    tags = image.tag_v2
    if tags.get(COMPRESSION) != _JPEG:
        return
    tables = bytes(tags.get(JPEGTABLES, b""))[:-_MARKER_BYTES]
    for start, end, size_px in _parts(tags):
        part = data[start:end]
        check_jpeg(tables + part[_MARKER_BYTES:] if tables else part, size_px)


def _parts(tags: ImageFileDirectory_v2) -> Iterator[tuple[int, int, tuple[int, int]]]:
    """Start, end and (width, height) of each strip or tile."""
    width, height = tags[IMAGEWIDTH], tags[IMAGELENGTH]
    if TILEOFFSETS in tags:
        for offset, count in zip(tags[TILEOFFSETS], tags[TILEBYTECOUNTS], strict=True):
            yield offset, offset + count, (tags[TILEWIDTH], tags[TILELENGTH])
        return
    rows = max(1, min(tags.get(ROWSPERSTRIP, height), height))
    tops = range(0, height, rows)
    for index, (offset, count) in enumerate(zip(tags[STRIPOFFSETS], tags[STRIPBYTECOUNTS], strict=True)):
        top = tops[index % len(tops)]  # with separate planes, the strips of the next one follow
        yield offset, offset + count, (width, min(rows, height - top))
