"""Pictures scaled to the backbone's input."""

from __future__ import annotations

import numpy as np
from PIL import Image

from patchserve_server.domain.images import ModelInputs
from patchserve_server.imaging.picture import Picture


def to_model_input(picture: Picture, size_px: int) -> ModelInputs:
    """The whole picture, uncropped, stretched to (S, S, 3) by PIL's bilinear resize (notebook: Resize)."""
    return np.asarray(picture.resize((size_px, size_px), Image.Resampling.BILINEAR))
