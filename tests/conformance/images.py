"""The images of the cases, made by formula."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from fakes.deep_images import png16
from fakes.images import card, encoded, noise
from PIL import Image


def write_images(folder: Path) -> None:
    """Write all images of the cases into an existing folder."""
    intact = card(9)
    jpeg = np.asarray(Image.open(io.BytesIO(encoded(intact))))
    twelve_bits = np.rint(jpeg * (4095 / 255)).astype(np.uint16)
    images = {f"card-{seed}.jpg": encoded(card(seed)) for seed in range(4)}
    images |= {
        "intact.jpg": encoded(intact),
        "intact.bmp": encoded(intact, "BMP"),
        "scratched.jpg": encoded(card(9, scratched=True)),
        "twelve-bits.png": png16(twelve_bits),
        "cut.jpg": encoded(intact)[:1500],
        "note.txt": b"This is no image.",
        "large.bmp": encoded(Image.new("RGB", (800, 600)), "BMP"),  # 1.4 MB
        "huge.bmp": encoded(Image.new("RGB", (1600, 1200)), "BMP"),  # 5.8 MB
        "noise.jpg": encoded(noise(990), quality=30),  # 0.3 MB, an overlay as PNG has 2.9 MB
        "wide.png": encoded(Image.new("RGB", (1100, 1000)), "PNG"),  # few bytes, many pixels
    }
    for name, content in images.items():
        (folder / name).write_bytes(content)
