"""What a device needs to draw an overlay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from patchserve_server.domain.inspection import OVERLAY_SIDE_RANGE_PX, HeatmapScale
from patchserve_server.domain.jpeg_file import JpegFile


@dataclass(frozen=True, slots=True, eq=False)
class OverlayDrawing:
    """An overlay to draw on a JPEG and to encode as a JPEG. Nothing of it stays on the device from the scoring."""

    file: JpegFile
    heat_levels: NDArray[np.uint8]  # (H, W) in the size of the anomaly map, 0 cold to 255 hot
    scale: HeatmapScale  # RELATIVE: in the size of the map, then enlarged; CALIBRATED: in the size of the overlay
    size_px: tuple[int, int]  # (width, height) of the overlay
    outlines: Sequence[Sequence[tuple[int, int]]] = ()  # of regions: (x, y) in pixels of the upright image

    def __post_init__(self) -> None:
        rows, columns = self.heat_levels.shape
        if not rows * columns:
            raise ValueError("A drawing needs heat levels.")
        if not all(1 <= side_px <= OVERLAY_SIDE_RANGE_PX[1] for side_px in self.size_px):
            raise ValueError(f"An overlay cannot have {self.size_px} pixels.")

    @property
    def nbytes(self) -> int:
        return self.file.nbytes + self.heat_levels.nbytes
