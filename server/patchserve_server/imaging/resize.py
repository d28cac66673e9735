"""Scales images to model inputs."""

from __future__ import annotations

import numpy as np
from PIL import Image

from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.input_options import InputShape
from patchserve_server.imaging.pil_image import PilImage


def to_model_input(image: PilImage, shape: InputShape) -> ModelInputs:
    """The uncropped image, resized to (H, W, 3) by PIL's bilinear filter (notebook: Resize)."""
    return np.asarray(image.resize(shape.size_px, Image.Resampling.BILINEAR))
