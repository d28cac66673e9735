"""The scans of a progressive JPEG: each adds some bits of some coefficients, so a file may end after any of them."""

from __future__ import annotations

import re
from typing import Final

from patchserve_server.domain.errors import UndecodableImageError

_MARKER: Final = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")  # no stuffed 0xff of pixel data, no restart marker
_SEQUENTIAL: Final = (0xC0, 0xC1)
_PROGRESSIVE: Final = 0xC2
_SCAN: Final = 0xDA
_END: Final = 0xD9
_COEFFICIENTS: Final = 64  # of each component of the color in a block
_ALL_BITS: Final = 16
_MAX_SEGMENTS: Final = 10_000  # a file of 30 MB can have millions, and editors write dozens


def has_all_scans(data: bytes) -> bool:
    """Whether the scans of a JPEG have every bit of every coefficient. libjpeg decodes a file without the last ones.

    Raises:
        UndecodableImageError: there are too many segments.
    """
    missing_bits: dict[int, list[int]] = {}  # of each coefficient, by component
    end = 2
    for _ in range(_MAX_SEGMENTS):
        if (found := _MARKER.search(data, end)) is None or (marker := found[1][0]) == _END:
            return not any(any(coefficients) for coefficients in missing_bits.values())
        start = found.end() + 2
        end = found.end() + int.from_bytes(data[found.end() : start], "big")
        body = data[start:end]
        if marker in _SEQUENTIAL:
            return True
        if marker == _PROGRESSIVE:
            missing_bits = {component: [_ALL_BITS] * _COEFFICIENTS for component in body[6::3]}
        elif marker == _SCAN:
            first, last, bits = body[-3:]
            for component in body[1:-3:2]:
                missing_bits[component][first : last + 1] = [bits & 0x0F] * (last + 1 - first)
    raise UndecodableImageError(f"The JPEG has too many segments; at most {_MAX_SEGMENTS:,} are supported.")
