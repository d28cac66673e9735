"""The region of interest: which pixels and which patches of an image count."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.reference import RegionOfInterest

_FILL_LEVEL = 127
_COUNTED_SHARE = 0.5
_SUBPIXEL_BITS = 4


@dataclass(frozen=True, slots=True, eq=False)
class RegionMask:
    """A region of interest at the size of model inputs, and on the grid of patches."""

    pixels: NDArray[np.bool_]  # (S, S)
    patches: NDArray[np.bool_]  # (P,)

    def painted(self, inputs: ModelInputs) -> ModelInputs:
        """Inputs (B, S, S, 3) in one gray outside of the region, so that nothing there can reach a patch inside."""
        return np.where(self.pixels[..., None], inputs, np.uint8(_FILL_LEVEL))


def region_mask_of(region: RegionOfInterest, size_px: int, grid: tuple[int, int]) -> RegionMask | None:
    """The region on (size_px, size_px) pixels and on the grid (rows, columns); None for the whole image.

    A patch counts if half of its pixels do. In a region too narrow for that, those count that it covers most.
    """
    if not region:
        return None
    # OpenCV takes fixed-point numbers, in which the middle of the first pixel is 0.
    scale = 1 << _SUBPIXEL_BITS
    # Clipped to the middles of the outermost pixels: a sliver along the edge covers those, never none.
    outlines = [
        np.rint(np.clip(np.array(polygon) * size_px - 0.5, 0, size_px - 1) * scale).astype(np.int32)
        for polygon in region
    ]
    drawn = np.zeros((size_px, size_px), np.uint8)
    for outline in outlines:  # one by one: together, they would cancel out where they overlap
        cv2.fillPoly(drawn, [outline], 1, shift=_SUBPIXEL_BITS)
    rows, columns = grid
    shares = cv2.resize(drawn.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)
    patches = shares >= min(_COUNTED_SHARE, float(shares.max()))
    return RegionMask(drawn.astype(np.bool_), patches.ravel())
