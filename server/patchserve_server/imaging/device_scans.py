"""Whether the scans of a baseline JPEG are as encoders write them, so that all decoders read the same from them.

A decoder may take the first or the last of two tables, and nobody says which tables a file without them has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

from patchserve_server.imaging.jpeg_segments import SCAN, Segment

_QUANTIZATION: Final = 0xDB
_HUFFMAN: Final = 0xC4
_QUANTIZATION_BYTES: Final = 65  # of a table with 8 bits
_LENGTHS_END: Final = 17  # of a Huffman table: then its values follow
_DC, _AC = 0, 1
_FILLED: Final = b"\xff\xff"


def has_plain_scans(data: bytes, found: Sequence[Segment]) -> bool:
    """Whether that is so in a file with these segments, the last one of which is its end."""
    scanned, huffman_tables = list[int](), set[tuple[int, int]]()
    for (marker, start, body), following in pairwise(found):
        if marker == _QUANTIZATION and (scanned or not _has_8_bits(body)):
            return False
        if marker == _HUFFMAN:
            huffman_tables |= set(_huffman_tables(body))
        if marker == SCAN:
            components = list(body[1:-3:2])
            is_read = huffman_tables.issuperset(_tables_needed(body))
            is_filled = data.find(_FILLED, start + 4 + len(body), following.start) >= 0
            if not is_read or is_filled or components != sorted(set(components)):
                return False
            scanned += components
    return len(scanned) == len(set(scanned))


def _has_8_bits(tables: bytes) -> bool:
    return not any(head >> 4 for head in tables[::_QUANTIZATION_BYTES])


def _huffman_tables(body: bytes) -> Iterator[tuple[int, int]]:
    """The class and the number of each."""
    while body:
        yield body[0] >> 4, body[0] & 0x0F
        body = body[_LENGTHS_END + sum(body[1:_LENGTHS_END]) :]


def _tables_needed(scan: bytes) -> Iterator[tuple[int, int]]:
    for numbers in scan[2:-3:2]:
        yield _DC, numbers >> 4
        yield _AC, numbers & 0x0F
