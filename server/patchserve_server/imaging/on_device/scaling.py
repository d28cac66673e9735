"""Scales images on a device as Pillow and OpenCV do: each axis is a product with a matrix of weights.

Between the axes, pixels are rounded to levels, as Pillow does it. The sums of Pillow's weights are exact in float32, so
pixels are those of Pillow; of a side with more than some thousand pixels, a few may be one level apart.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import torch
from torch import Tensor

from patchserve_server.imaging.resize_weights import HIGH_UNIT, Taps, begins_with_height, placed_parts

TapsOf: TypeAlias = Callable[[int, int], Taps]
"""The weights from a source side to a target side: `filter_taps` of one filter, or one of `canvas_weights`."""

_BLOCK_ROWS: Final = 16  # target rows that use the same window of source rows
_VALUES_AT_ONCE: Final = 2**24  # float32, of windows and of sums
_CACHED_BYTES: Final = 2**25
_LARGEST_LEVEL: Final = 255


@dataclass(frozen=True, slots=True, eq=False)
class AxisWeights:
    """The weights of one axis, on a device."""

    target: int
    rows: Tensor  # (blocks * window,) int64, the source rows of each window
    parts: Tensor  # (blocks, 2 * _BLOCK_ROWS, window) float32: high parts, then low parts

    @classmethod
    def of(cls, taps: Taps, source: int, device: torch.device) -> AxisWeights:
        first, weights = taps
        target = len(first)
        blocks = -(-target // _BLOCK_ROWS)
        filling = blocks * _BLOCK_ROWS - target
        first = np.pad(first, (0, filling), mode="edge").reshape(blocks, _BLOCK_ROWS)
        weights = np.pad(weights, ((0, filling), (0, 0))).reshape(blocks, _BLOCK_ROWS, -1)
        offsets = first - first[:, :1]
        window = int(offsets.max()) + weights.shape[-1]
        rows = (first[:, :1] + np.arange(window)).clip(0, source - 1)  # OpenCV repeats the pixels at the edge
        parts = placed_parts(offsets, weights, window).swapaxes(0, 1).reshape(blocks, 2 * _BLOCK_ROWS, window)
        return cls(target, torch.from_numpy(rows.reshape(-1)).to(device), torch.from_numpy(parts).to(device))

    @property
    def nbytes(self) -> int:
        return self.rows.nbytes + self.parts.nbytes

    def scale(self, pixels: Tensor) -> Tensor:
        """Pixels (C, source, X) uint8, scaled to (C, target, X)."""
        blocks, _, window = self.parts.shape
        values_per_column = len(pixels) * blocks * max(window, self.parts.shape[1])
        bands = torch.split(pixels, max(1, _VALUES_AT_ONCE // values_per_column), dim=2)
        scaled = [self._scale_band(band) for band in bands]
        return scaled[0] if len(scaled) == 1 else torch.cat(scaled, dim=2)

    def _scale_band(self, pixels: Tensor) -> Tensor:
        channels, _, columns = pixels.shape
        blocks, _, window = self.parts.shape
        windows = pixels.index_select(1, self.rows).view(channels, blocks, window, columns).float()
        high, low = (self.parts @ windows).view(channels, blocks, 2, _BLOCK_ROWS, columns).unbind(2)
        levels = high.add(low.floor()).mul(HIGH_UNIT).add(0.5).floor().clamp(0, _LARGEST_LEVEL)
        return levels.to(torch.uint8).reshape(channels, -1, columns)[:, : self.target]


class Scaler:
    """Scales on one device, and keeps the weights of the sizes that were used last. Not for several threads."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._kept = OrderedDict[tuple[TapsOf, int, int], AxisWeights]()

    def scale(self, pixels: Tensor, size_px: tuple[int, int], taps: tuple[TapsOf, TapsOf] | TapsOf) -> Tensor:
        """Pixels (C, H, W) uint8 of any number of planes, scaled to (width, height).

        Args:
            pixels: of images of one size.
            size_px: that they get.
            taps: the filter, or one for each side: (width, height).
        """
        for_width, for_height = taps if isinstance(taps, tuple) else (taps, taps)
        if begins_with_height(pixels.shape[:0:-1], size_px):
            return self._scale_width(self._scale_height(pixels, size_px[1], for_height), size_px[0], for_width)
        return self._scale_height(self._scale_width(pixels, size_px[0], for_width), size_px[1], for_height)

    def _scale_height(self, pixels: Tensor, target: int, taps: TapsOf) -> Tensor:
        return pixels if pixels.shape[1] == target else self._weights(taps, pixels.shape[1], target).scale(pixels)

    def _scale_width(self, pixels: Tensor, target: int, taps: TapsOf) -> Tensor:
        return self._scale_height(pixels.transpose(1, 2), target, taps).transpose(1, 2)

    def _weights(self, taps: TapsOf, source: int, target: int) -> AxisWeights:
        key = (taps, source, target)
        found = self._kept.pop(key, None) or AxisWeights.of(taps(source, target), source, self._device)
        self._kept[key] = found
        while len(self._kept) > 1 and sum(each.nbytes for each in self._kept.values()) > _CACHED_BYTES:
            self._kept.popitem(last=False)
        return found
