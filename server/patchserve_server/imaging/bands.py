"""Images in bands of rows."""

from __future__ import annotations

from collections.abc import Iterator


def row_bands(row_count: int, band_rows: int) -> Iterator[slice]:
    """All rows of an image from top to bottom, at most `band_rows` at a time.

    Processing one small band in several steps is faster than the whole image: the band stays in the CPU cache.
    """
    for top in range(0, row_count, band_rows):
        yield slice(top, min(row_count, top + band_rows))
