"""The segments of a JPEG."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from patchserve_server.domain.errors import UndecodableImageError

SEQUENTIAL: Final = (0xC0, 0xC1, 0xC9)  # the last one: with arithmetic coding
PROGRESSIVE: Final = (0xC2, 0xCA)  # the same
SCAN: Final = 0xDA
_END: Final = 0xD9
_METADATA: Final = frozenset([*range(0xE0, 0xF0), 0xFE])  # of applications, and comments
_START: Final = b"\xff\xd8"
_MARKER: Final = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")  # no stuffed 0xff of pixel data, no restart marker
_MAX_SEGMENTS: Final = 10_000  # a file of 30 MB can have millions, and editors write dozens


class Segment(NamedTuple):
    """A marker and what belongs to it."""

    marker: int
    start: int  # of its marker in the file
    body: bytes  # what follows the length


def segments(data: bytes) -> Iterator[Segment]:
    """All segments of a JPEG; its end is the last one.

    Raises:
        UndecodableImageError: there are too many.
    """
    end = 2
    for _ in range(_MAX_SEGMENTS):
        if (found := _MARKER.search(data, end)) is None:
            return
        if (marker := found[1][0]) == _END:
            yield Segment(marker, found.start(), b"")
            return
        start = found.end() + 2
        end = found.end() + int.from_bytes(data[found.end() : start], "big")
        yield Segment(marker, found.start(), data[start:end])
    raise UndecodableImageError(f"The JPEG has too many segments; at most {_MAX_SEGMENTS:,} are supported.")


def without_metadata(data: bytes, found: Iterable[Segment]) -> bytes:
    """The file with these segments of it, except for those on which no pixel depends, and with nothing after its end.

    The pixel data of a scan follow its segment, up to the next one.
    """
    kept, last_scan = [_START], -1
    for marker, start, body in found:
        if last_scan >= 0:
            kept.append(data[last_scan:start])
            last_scan = -1
        if marker == SCAN:
            last_scan = start
        elif marker == _END:
            kept.append(data[start : start + 2])
        elif marker not in _METADATA:
            kept.append(data[start : start + 4] + body)
    return b"".join([*kept, data[last_scan:] if last_scan >= 0 else b""])
