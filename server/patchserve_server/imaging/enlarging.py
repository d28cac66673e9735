"""Enlarges images as Pillow's LANCZOS does, with the very same pixels, in half of its time: as matrix products."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray
from PIL import Image

from patchserve_server.domain.images import RgbImage
from patchserve_server.imaging.bands import row_bands
from patchserve_server.imaging.lanczos_weights import MAX_TARGET, Weights, enlarging_weights
from patchserve_server.imaging.resize_weights import HIGH_UNIT

_BAND_COLUMNS: Final = 2048  # products of this size stay in the cache of a core, and OpenBLAS starts no thread for them


def resize_lanczos(image: RgbImage, size_px: tuple[int, int]) -> RgbImage:
    """The image (H, W, 3), resized to (width, height) exactly as by Pillow. May be read-only, and the same array."""
    height, width, _ = image.shape
    new_width, new_height = size_px
    if new_width < width or new_height < height or max(size_px) > MAX_TARGET:
        return np.asarray(Image.fromarray(image).resize(size_px, Image.Resampling.LANCZOS))
    if new_width != width:  # Pillow, too, begins with the width; between the passes it rounds to whole levels
        columns = _transposed(image).reshape(width, -1)  # (W, H x 3)
        columns = _enlarge_rows(columns, enlarging_weights(width, new_width))
        image = _transposed(columns.reshape(new_width, height, 3))
    if new_height != height:
        rows = _enlarge_rows(image.reshape(height, -1), enlarging_weights(height, new_height))
        image = rows.reshape(new_height, new_width, 3)
    return image


def _transposed(image: RgbImage) -> RgbImage:
    return cv2.transpose(image).astype(np.uint8, copy=False)


def _enlarge_rows(rows: NDArray[np.uint8], weights: Weights) -> NDArray[np.uint8]:
    """(source, X) to (target, X)."""
    enlarged = np.empty((weights.padded_target, rows.shape[1]), np.uint8)
    for band in row_bands(rows.shape[1], _BAND_COLUMNS):
        _enlarge_band(rows[:, band], weights, enlarged[:, band])
    return enlarged[: weights.target]


def _enlarge_band(rows: NDArray[np.uint8], weights: Weights, enlarged: NDArray[np.uint8]) -> None:
    width, padding = rows.shape[1], weights.padding
    source = np.empty((weights.padded_source, width), np.float32)
    source[:padding], source[padding + len(rows) :] = 0, 0
    source[padding : padding + len(rows)] = rows
    row_stride, stride = source.strides
    sums = np.empty((*weights.groups[0].parts.shape[:-1], width), np.float32)
    for group in weights.groups:
        _, count, _, taps = group.parts.shape
        shape, strides = (count, taps, width), (weights.step * row_stride, row_stride, stride)
        windows = as_strided(source[group.start :], shape, strides, writeable=False)
        # Exact: all sums are below 2^24.
        high, low = np.matmul(group.parts, windows, out=sums[:, :count]).reshape(2, -1, width)
        np.floor(low, out=low)
        # Pillow rounds halves up, OpenCV to the even number: half a unit moves them up, and nothing else.
        cv2.addWeighted(high, HIGH_UNIT, low, HIGH_UNIT, HIGH_UNIT / 2, dst=enlarged[group.rows], dtype=cv2.CV_8U)
