"""Sample files, by which a device and the CPU are compared."""

from __future__ import annotations

import io
from typing import Final

import cv2
import numpy as np
from PIL import Image

from patchserve_server.domain.images import RgbImage
from patchserve_server.domain.input_options import InputShape
from patchserve_server.domain.jpeg_file import JpegFile

_SAVED: Final[tuple[dict[str, object], ...]] = (
    {"quality": 90, "subsampling": "4:2:0"},
    {"quality": 75, "subsampling": "4:2:0"},
    {"quality": 90, "subsampling": "4:2:2"},
    {"quality": 95, "subsampling": "4:4:4"},
)
"""In the options of Pillow."""


def sample_files(shape: InputShape) -> list[JpegFile]:
    """Files of this size, as cameras and programs write them; the last one is gray. Any device decodes the first."""
    files = [_saved(Image.fromarray(_drawn(shape, seed)), **options) for seed, options in enumerate(_SAVED)]
    return [*files, _saved(Image.fromarray(_drawn(shape, len(files))).convert("L"), quality=90)]


def decode_on_cpu(file: JpegFile) -> RgbImage:
    """The pixels (H, W, 3) of a file, as they are stored."""
    return np.asarray(Image.open(io.BytesIO(file.data)).convert("RGB"))


def _saved(image: Image.Image, **options: object) -> JpegFile:
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return JpegFile(file.getvalue(), image.size)


def _drawn(shape: InputShape, seed: int) -> RgbImage:
    """A smooth pattern with the noise of a camera, and a few things with sharp edges and strong colors."""
    rng = np.random.default_rng(seed)
    pattern = cv2.resize(rng.uniform(60, 200, (6, 8, 3)), shape.size_px, interpolation=cv2.INTER_CUBIC)
    image = (pattern + rng.normal(0, 8, (*shape.sides_px, 1))).clip(0, 255).astype(np.uint8)
    for _ in range(6):
        center = tuple(int(at) for at in rng.uniform(0, shape.size_px))
        color = tuple(int(level) for level in rng.integers(0, 256, 3))
        cv2.circle(image, center, int(rng.integers(2, 24)), color, -1)
    return image
