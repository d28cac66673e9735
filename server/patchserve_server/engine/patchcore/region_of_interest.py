"""The region of interest: which pixels and which patches of an image count."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.input_options import InputShape
from patchserve_server.domain.reference_options import RegionOfInterest

COVER_LEVEL = 127
_MIN_COVERAGE = 0.5
_SUBPIXEL_BITS = 4


@dataclass(frozen=True, slots=True, eq=False)
class RoiMask:
    """The region of interest as pixels of model inputs and as positions of the patch grid."""

    pixels: NDArray[np.bool_]  # (H, W)
    pixels_of_map: NDArray[np.bool_]  # the same in the map's shape
    patches: NDArray[np.bool_]  # (P,)

    @property
    def nbytes(self) -> int:
        return self.pixels.nbytes + self.pixels_of_map.nbytes + self.patches.nbytes

    @staticmethod
    def predict_nbytes(shape: InputShape, patches: int) -> int:
        """`nbytes` of the mask for model inputs of this shape and this many patches."""
        return patches + shape.pixels + shape.map_shape.pixels

    def cover(self, inputs: ModelInputs) -> ModelInputs:
        """Inputs (B, H, W, 3), filled with gray outside the region, so that nothing there changes scores inside."""
        return np.where(self.pixels[..., None], inputs, np.uint8(COVER_LEVEL))


def cover_outside(roi_mask: RoiMask | None, inputs: ModelInputs) -> ModelInputs:
    """Model inputs (B, H, W, 3), covered outside the region of interest; None: the whole image counts."""
    return inputs if roi_mask is None else roi_mask.cover(inputs)


def build_roi_mask(region: RegionOfInterest, shape: InputShape, grid: tuple[int, int]) -> RoiMask | None:
    """The mask for inputs of this shape and a grid of (rows, columns); None for the whole image.

    A patch counts if half of its pixels do. If no patch reaches that because the region is narrow, the patches with the
    largest covered share count.
    """
    if not region:
        return None
    size_px = np.array(shape.size_px)
    # OpenCV takes fixed-point coordinates, in which the center of the first pixel is 0.
    scale = 1 << _SUBPIXEL_BITS
    # Clipped to the centers of the outermost pixels, so that a narrow polygon along the edge covers these pixels.
    outlines = [
        np.rint(np.clip(np.array(polygon) * size_px - 0.5, 0, size_px - 1) * scale).astype(np.int32)  # (points, 2)
        for polygon in region
    ]
    covered = np.zeros(shape.sides_px, np.uint8)
    for outline in outlines:  # separately: in one call, overlapping parts would cancel out
        cv2.fillPoly(covered, [outline], 1, shift=_SUBPIXEL_BITS)
    rows, columns = grid
    coverage = cv2.resize(covered.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)
    patches = coverage >= min(_MIN_COVERAGE, float(coverage.max()))
    # A region that is narrower than a pixel of the map still has pixels there.
    on_map = cv2.resize(covered.astype(np.float32), shape.map_shape.size_px, interpolation=cv2.INTER_AREA)
    covered_map = on_map >= min(_MIN_COVERAGE, float(on_map.max()))
    return RoiMask(covered.astype(np.bool_), covered_map.astype(np.bool_), patches.ravel())
