"""PNG files with 16 bits per sample in color, which Pillow cannot write."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_COLOR_TYPES = {3: 2, 4: 6}  # channels -> color type: RGB, RGBA
_NO_FILTER = b"\0"
_COMPRESS_LEVEL = 1  # slightly larger files than with the default level, but several times faster


def deep_png(pixels: NDArray[np.uint16]) -> bytes:
    """The PNG of an image of (H, W, 3) RGB or (H, W, 4) RGBA."""
    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 16, _COLOR_TYPES[channels], 0, 0, 0)
    deflate = zlib.compressobj(_COMPRESS_LEVEL)
    rows = [
        deflate.compress(b"\0" + row.astype(">u2").tobytes()) for row in pixels
    ]  # each begins with its filter: none
    data = b"".join([*rows, deflate.flush()])
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))
