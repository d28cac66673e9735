"""The weights of Pillow's LANCZOS in fixed point, arranged in blocks for matrix products.

Pillow's weights have 22 bits, and it sums in integers. Here each weight has two parts, so that sums in float32 are
exact too.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

MAX_TARGET: Final = 8192  # weights of longer sides take too much memory to be kept

_WEIGHT_BITS: Final = 22
_LOW_BITS: Final = 8
HIGH_UNIT: Final = 2.0 ** (_LOW_BITS - _WEIGHT_BITS)
"""What 1 in a high part is worth, in levels of a pixel."""
_RADIUS: Final = 3  # how many source rows a target row depends on, on each side
_CACHED: Final = 32  # pairs of sizes: up to 1 MB each
_BLOCK_ROWS: Final = 8  # target rows that use the same window of source rows
_GROUP_BLOCKS: Final = 8


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Blocks of target rows whose windows of source rows follow each other in equal steps."""

    start: int  # the first padded source row of the first window
    rows: slice  # of the padded target
    parts: NDArray[
        np.float32
    ]  # (high and low, blocks, rows of a block, window); the low ones in units of the high ones


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """The weights from source rows to at least as many target rows."""

    target: int
    padding: int  # rows of zeros before the source
    padded_source: int
    padded_target: int
    step: int  # source rows from window to window
    groups: tuple[Group, ...]


@lru_cache(_CACHED)
def enlarging_weights(source: int, target: int) -> Weights:
    """The weights to enlarge `source` rows to `target`, arranged in blocks."""
    first, taps = _fixed_point(source, target)
    blocks = -(-target // _BLOCK_ROWS)
    padded_target = blocks * _BLOCK_ROWS
    padding_rows = padded_target - target
    first = np.pad(first, (0, padding_rows), mode="edge").reshape(blocks, _BLOCK_ROWS)
    taps = np.pad(taps, ((0, padding_rows), (0, 0))).reshape(blocks, _BLOCK_ROWS, -1)
    step = _BLOCK_ROWS * source // target
    starts = range(0, blocks, _GROUP_BLOCKS)
    # Of each group: where the rows' weights begin, if the window of each block begins `step` after the one before.
    offsets = [
        first[at : at + _GROUP_BLOCKS] - step * np.arange(min(_GROUP_BLOCKS, blocks - at))[:, None] for at in starts
    ]
    window = max(int(np.ptp(offset)) for offset in offsets) + taps.shape[-1]
    padding = max(0, -min(int(offset.min()) for offset in offsets))
    groups = []
    for at, offset in zip(starts, offsets, strict=True):
        begin, end = at, at + len(offset)
        parts = _parts(offset - offset.min(), taps[begin:end], window)
        groups.append(Group(int(offset.min()) + padding, slice(begin * _BLOCK_ROWS, end * _BLOCK_ROWS), parts))
    ends = (group.start + step * (group.parts.shape[1] - 1) + window for group in groups)
    return Weights(target, padding, max(padding + source, *ends), padded_target, step, tuple(groups))


def _parts(offsets: NDArray[np.int64], taps: NDArray[np.int64], window: int) -> NDArray[np.float32]:
    """Weights (blocks, rows, taps) at their offsets in windows: (high and low, blocks, rows, window)."""
    placed = np.zeros((*offsets.shape, window), np.int64)
    np.put_along_axis(placed, offsets[..., None] + np.arange(taps.shape[-1]), taps, axis=-1)
    high = (placed + (1 << _LOW_BITS >> 1)) >> _LOW_BITS
    low = placed - (high << _LOW_BITS)
    return np.stack([high.astype(np.float32), low.astype(np.float32) / (1 << _LOW_BITS)])


def _fixed_point(source: int, target: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of each target row, the first source row that it depends on, and its weights: (target,), (target, taps).

    The steps are those of Pillow, in the same order, so that they round in the same way.
    """
    center = (np.arange(target) + 0.5) * (source / target)
    first = np.maximum((center - _RADIUS + 0.5).astype(np.int64), 0)
    end = np.minimum((center + _RADIUS + 0.5).astype(np.int64), source)
    rows = first[:, None] + np.arange(int((end - first).max()))  # (target, taps)
    x = rows - center[:, None] + 0.5
    weights = np.where((np.abs(x) < _RADIUS) & (rows < end[:, None]), np.sinc(x) * np.sinc(x / _RADIUS), 0)
    weights /= np.cumsum(weights, axis=1)[:, -1:]  # summed one after the other
    scaled = weights * (1 << _WEIGHT_BITS)
    return first, np.trunc(scaled + np.copysign(0.5, scaled)).astype(np.int64)
