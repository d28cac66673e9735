"""Files with more than 8 bits per sample, as cameras and their programs write them."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.uint16]
"""(H, W) gray or (H, W, C): 2 gray and alpha, 3 RGB, 4 RGB and alpha."""

_PNG_COLOR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""The passes of an interlaced PNG: (top, left, step down, step right)."""


def png16(samples: Samples, *before_pixels: bytes, significant: bytes = b"", interlaced: bool = False) -> bytes:
    """A PNG with 16 bits per sample. `significant` is the body of its chunk sBIT; empty: it has none."""
    height, width = samples.shape[:2]
    channels = 1 if samples.ndim == 2 else samples.shape[2]
    header = struct.pack(">IIBBBBB", width, height, 16, _PNG_COLOR_TYPES[channels], 0, 0, interlaced)
    passes = [samples[top::down, left::right] for top, left, down, right in _ADAM7] if interlaced else [samples]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for each in passes if each.size for row in each)
    chunks = [png_chunk(b"IHDR", header)]
    if significant:
        chunks.append(png_chunk(b"sBIT", significant))
    chunks += [*before_pixels, png_chunk(b"IDAT", zlib.compress(rows)), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def tiff16(
    samples: Samples,
    *,
    order: str = "<",
    planes: bool = False,
    deflated: bool = False,
    extra: int | None = None,
    more_tags: dict[int, int] | None = None,
) -> bytes:
    """A TIFF with 16 bits per sample.

    Args:
        samples: gray, RGB or RGB with one more.
        order: of the bytes, "<" or ">".
        planes: whether each color is stored for itself.
        deflated: whether it is compressed.
        extra: what the fourth sample is: 0 nothing, 1 premultiplied alpha, 2 alpha.
        more_tags: with one short integer each.
    """
    height, width = samples.shape[:2]
    channels = 1 if samples.ndim == 2 else samples.shape[2]
    pixels = samples.reshape(height, width, channels)
    parts = [pixels[..., channel] for channel in range(channels)] if planes else [pixels]
    strips = [part.astype(order + "u2").tobytes() for part in parts]
    if deflated:
        strips = [zlib.compress(strip) for strip in strips]
    tags: dict[int, list[int]] = {
        256: [width],
        257: [height],
        258: [16] * channels,
        259: [8 if deflated else 1],
        262: [2 if channels > 2 else 1],
        273: [0] * len(strips),
        277: [channels],
        278: [height],
        279: [len(strip) for strip in strips],
        284: [2 if planes else 1],
    }
    tags |= {} if extra is None else {338: [extra]}
    tags |= {tag: [value] for tag, value in (more_tags or {}).items()}
    values_at = 8 + 2 + 12 * len(tags) + 4
    pixels_at = values_at + sum(4 * len(values) for values in tags.values())
    tags[273] = [pixels_at + sum(map(len, strips[:index])) for index in range(len(strips))]
    entries, stored = b"", b""
    for tag, values in sorted(tags.items()):
        kind, form = (4, "L") if tag in (273, 279) else (3, "H")
        packed = struct.pack(f"{order}{len(values)}{form}", *values)
        field = packed.ljust(4, b"\0") if len(packed) <= 4 else struct.pack(order + "L", values_at + len(stored))
        stored += b"" if len(packed) <= 4 else packed
        entries += struct.pack(order + "HHL", tag, kind, len(values)) + field
    head = struct.pack(order + "2sHLH", b"II" if order == "<" else b"MM", 42, 8, len(tags))
    return (head + entries + bytes(4) + stored).ljust(pixels_at, b"\0") + b"".join(strips)
