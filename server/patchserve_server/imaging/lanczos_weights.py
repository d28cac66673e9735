"""The weights of Pillow's LANCZOS to enlarge an image, arranged in blocks for matrix products."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from patchserve_server.imaging.resize_weights import LANCZOS, filter_taps, placed_parts

MAX_TARGET: Final = 8192  # weights of longer sides take too much memory to be kept

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
    first, taps = filter_taps(LANCZOS, source, target)
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
        parts = placed_parts(offset - offset.min(), taps[begin:end], window)
        groups.append(Group(int(offset.min()) + padding, slice(begin * _BLOCK_ROWS, end * _BLOCK_ROWS), parts))
    ends = (group.start + step * (group.parts.shape[1] - 1) + window for group in groups)
    return Weights(target, padding, max(padding + source, *ends), padded_target, step, tuple(groups))
