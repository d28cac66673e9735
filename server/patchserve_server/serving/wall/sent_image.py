"""A kept image as JSON and bytes, on its way from the front that keeps it to one that is asked for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from patchserve_server.domain.images import SentImage
from patchserve_server.domain.inspection import EncodedOverlay
from patchserve_server.domain.raw_frame import PixelFormat, RawFrame
from patchserve_server.serving.values import from_json, to_json
from patchserve_server.serving.wall.kept_images import KeptImage
from patchserve_server.serving.wall.tile import Tile


@dataclass(frozen=True, slots=True)
class _Head:
    tile: Tile
    white_level: int | None
    pixel_format: PixelFormat | None  # None: the bytes are a file
    shape: tuple[int, ...]  # of the samples
    image_bytes: int
    overlay: EncodedOverlay | None  # its bytes follow those of the image


def parts_of(kept: KeptImage, overlay: EncodedOverlay | None) -> tuple[dict[str, Any], bytes]:
    """The image, with its overlay if that is asked for."""
    sent = kept.image.content
    if isinstance(sent, RawFrame):
        content, pixel_format, shape = sent.samples.tobytes(), sent.pixel_format, sent.samples.shape
    else:
        content, pixel_format, shape = sent, None, ()
    without_bytes = None if overlay is None else replace(overlay, data=b"")
    head = _Head(kept.tile, kept.image.white_level, pixel_format, shape, len(content), without_bytes)
    return to_json(head), content + (b"" if overlay is None else overlay.data)


def from_parts(head: dict[str, Any], body: bytes) -> KeptImage:
    """The image. Its overlay is there only if it was asked for."""
    parts = from_json(_Head, head)
    content: bytes | RawFrame = body[: parts.image_bytes]
    if parts.pixel_format is not None:
        samples = np.frombuffer(body[: parts.image_bytes], parts.pixel_format.dtype)
        content = RawFrame(samples.reshape(parts.shape), parts.pixel_format)

    def draw_overlay(_: SentImage) -> EncodedOverlay:
        if parts.overlay is None:
            raise LookupError("The overlay was not asked for.")
        return replace(parts.overlay, data=body[parts.image_bytes :])

    return KeptImage(parts.tile, SentImage(content, parts.white_level), 0, draw_overlay)
