"""Scales images to model inputs."""

from __future__ import annotations

import numpy as np
from PIL import Image

from patchserve_server.domain.images import ModelInputs
from patchserve_server.imaging.pil_image import PilImage


def to_model_input(image: PilImage, size_px: int) -> ModelInputs:
    """The uncropped image, resized to (S, S, 3) by PIL's bilinear filter (notebook: Resize)."""
    return np.asarray(image.resize((size_px, size_px), Image.Resampling.BILINEAR))
