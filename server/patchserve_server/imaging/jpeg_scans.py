"""The scans of a JPEG: each adds a component, or some bits of some coefficients. A file may end after any of them."""

from __future__ import annotations

from typing import Final

from patchserve_server.imaging.jpeg_segments import PROGRESSIVE, SCAN, SEQUENTIAL, segments

_COEFFICIENTS: Final = 64  # of each component of the color in a block
_ALL_BITS: Final = 16


def has_all_scans(data: bytes) -> bool:
    """Whether the scans of a JPEG have every bit of every coefficient. libjpeg decodes a file without the last ones.

    Raises:
        UndecodableImageError: there are too many segments.
    """
    missing_bits: dict[int, list[int]] = {}  # of each coefficient, by component
    missing_components = set[int]()  # of a file whose scans have all bits of their components
    for marker, _, body in segments(data):
        if marker in SEQUENTIAL:
            missing_components |= set(body[6::3])
        elif marker in PROGRESSIVE:
            missing_bits = {component: [_ALL_BITS] * _COEFFICIENTS for component in body[6::3]}
        elif marker == SCAN and missing_components:
            missing_components -= set(body[1:-3:2])
            if not missing_components:  # what follows is not read: it is long
                return True
        elif marker == SCAN:
            first, last, bits = body[-3:]
            for component in body[1:-3:2]:
                missing_bits[component][first : last + 1] = [bits & 0x0F] * (last + 1 - first)
    return not missing_components and not any(any(coefficients) for coefficients in missing_bits.values())
