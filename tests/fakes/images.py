"""Images made by formula: a textured card, with or without a scratch, and noise."""

from __future__ import annotations

import io

import cv2
import numpy as np
from PIL import Image

SIZE_PX = (320, 240)  # (width, height)


def card(seed: int = 0, *, scratched: bool = False) -> Image.Image:
    """A brown card with grain on a gray table. The seed moves it a little and changes the grain."""
    rng = np.random.default_rng(seed)
    width, height = SIZE_PX
    pixels = np.full((height, width, 3), 96.0)
    left, top = (int(corner) for corner in 40 + rng.integers(-3, 4, 2))
    grain = cv2.GaussianBlur(rng.normal(0, 18, (160, 230)).astype(np.float32), (0, 0), 1.5) * 3
    pixels[top : top + 160, left : left + 230] = np.array([168, 128, 84]) + grain[..., None]
    cv2.rectangle(pixels, (left + 20, top + 20), (left + 90, top + 60), (235, 235, 230), -1)
    if scratched:
        corner = np.array([left - 40, top - 40], np.int32)
        zigzag = corner + np.array([[150, 90], [190, 130], [170, 150], [230, 175]], np.int32)
        cv2.polylines(pixels, [zigzag], isClosed=False, color=(25, 18, 12), thickness=9)
    pixels += rng.normal(0, 2, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def noise(side_px: int) -> Image.Image:
    """A square that encoders cannot shrink: 3 bytes a pixel."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (side_px, side_px, 3), np.uint8))


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
