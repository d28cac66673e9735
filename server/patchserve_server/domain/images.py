"""Images as arrays."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

RgbImage: TypeAlias = NDArray[np.uint8]
"""One image, upright (EXIF orientation applied): (H, W, 3) uint8, RGB."""

SentImage: TypeAlias = bytes | RgbImage
"""One image as it was sent: an encoded file, or its pixels."""

ModelInputs: TypeAlias = NDArray[np.uint8]
"""Images scaled to the input shape of a reference: (N, H, W, 3) uint8, RGB."""

AnomalyMap: TypeAlias = NDArray[np.float32]
"""Raw patch distances, scaled to the map shape of a reference: (H, W) float32, 0 or more."""
