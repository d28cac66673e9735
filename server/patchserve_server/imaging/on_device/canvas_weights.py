"""The weights with which `imaging.canvas` and `imaging.overlay` scale: of OpenCV, and of Pillow's reducing gap."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from patchserve_server.imaging.resize_weights import BILINEAR, Taps, filter_taps, fixed_point


def opencv_linear(source: int, target: int) -> Taps:
    """Of cv2.INTER_LINEAR."""
    first, share = _positions(source, target)
    return first, fixed_point(np.stack((1 - share, share), axis=1))


def opencv_cubic(source: int, target: int) -> Taps:
    """Of cv2.INTER_CUBIC."""
    first, share = _positions(source, target)
    distances = share[:, None] + np.array((1.0, 0.0, -1.0, -2.0))  # of four rows: 0 to 2
    return first - 1, fixed_point(_cubic(np.abs(distances)))


def reduced_bilinear(source: int, target: int) -> Taps:
    """Of Pillow's BILINEAR with a reducing gap of 1: means of whole numbers of pixels, and then BILINEAR of those."""
    factor = max(1, source // target)
    reduced = -(-source // factor)
    first, weights = filter_taps(BILINEAR, reduced, target, extent=source / factor)
    members = np.full(reduced, factor)
    members[-1] = source - factor * (reduced - 1)
    cells = (first[:, None] + np.arange(weights.shape[1])).clip(0, reduced - 1)
    of_pixels = np.repeat(weights / members[cells], factor, axis=1)  # what is beyond the source has no weight:
    pixels = factor * first[:, None] + np.arange(of_pixels.shape[1])
    return factor * first, np.rint(np.where(pixels < source, of_pixels, 0)).astype(np.int64)


def _positions(source: int, target: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Of each target row, the source row before its center, and how far beyond that the center is (0 to 1)."""
    center = (np.arange(target) + 0.5) * (source / target) - 0.5
    first = np.floor(center).astype(np.int64)
    return first, center - first


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    a = -0.75
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x < 1, near, far)
