"""The weights with which `imaging.canvas` scales large images down."""

from __future__ import annotations

import numpy as np

from patchserve_server.imaging.resize_weights import BILINEAR, Taps, filter_taps


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
