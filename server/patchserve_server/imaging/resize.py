"""Pictures scaled to the backbone's input."""

from __future__ import annotations

import numpy as np
from PIL import Image

from patchserve_server.domain.images import ModelInputs, RgbImage


def to_model_input(image: RgbImage, size_px: int) -> ModelInputs:
    """The whole picture (H, W, 3), uncropped, stretched to (S, S, 3) by PIL's bilinear resize (notebook: Resize)."""
    if image.shape[:2] == (size_px, size_px):
        return image
    return np.asarray(Image.fromarray(image).resize((size_px, size_px), Image.Resampling.BILINEAR))
