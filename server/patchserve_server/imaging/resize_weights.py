"""The weights of Pillow's filters in fixed point, computed as Pillow does.

Pillow's weights have 22 bits, and it sums in integers. Each weight is divided into two parts here, so that sums in
float32 are exact too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Taps: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Of each target row, the first source row that it depends on, and its weights: (target,), (target, taps)."""

WEIGHT_BITS: Final = 22
_LOW_BITS: Final = 8
HIGH_UNIT: Final = 2.0 ** (_LOW_BITS - WEIGHT_BITS)
"""What 1 in a high part is worth, in levels of a pixel."""


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter of Pillow. It reaches `radius` rows to each side, of the larger of source and target."""

    radius: int
    values: Callable[[NDArray[np.float64]], NDArray[np.float64]]


def _bicubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    a, x = -0.5, np.abs(x)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, far)


BILINEAR: Final = Filter(1, lambda x: 1 - np.abs(x))
BICUBIC: Final = Filter(2, _bicubic)
LANCZOS: Final = Filter(3, lambda x: np.sinc(x) * np.sinc(x / 3))


def filter_taps(filter_: Filter, source: int, target: int, *, extent: float | None = None) -> Taps:
    """The weights to scale `source` rows to `target`.

    The steps are those of Pillow, in the same order, so that they round in the same way. `extent`: how many of the
    rows there really are, if the last one is a part of a row.
    """
    scale = (source if extent is None else extent) / target
    widening = max(scale, 1.0)
    reach = filter_.radius * widening
    center = (np.arange(target) + 0.5) * scale
    first = np.maximum((center - reach + 0.5).astype(np.int64), 0)
    end = np.minimum((center + reach + 0.5).astype(np.int64), source)
    rows = first[:, None] + np.arange(int((end - first).max()))  # (target, taps)
    x = (rows - center[:, None] + 0.5) * (1 / widening)
    weights = np.where((np.abs(x) < filter_.radius) & (rows < end[:, None]), filter_.values(x), 0)
    weights /= np.cumsum(weights, axis=1)[:, -1:]  # summed one after the other
    return first, fixed_point(weights)


def fixed_point(weights: NDArray[np.float64]) -> NDArray[np.int64]:
    scaled = weights * (1 << WEIGHT_BITS)
    return np.trunc(scaled + np.copysign(0.5, scaled)).astype(np.int64)


def placed_parts(offsets: NDArray[np.int64], taps: NDArray[np.int64], window: int) -> NDArray[np.float32]:
    """Weights (blocks, rows, taps) at their offsets in windows: (high and low, blocks, rows, window).

    The low ones are in units of the high ones.
    """
    placed = np.zeros((*offsets.shape, window), np.int64)
    np.put_along_axis(placed, offsets[..., None] + np.arange(taps.shape[-1]), taps, axis=-1)
    high = (placed + (1 << _LOW_BITS >> 1)) >> _LOW_BITS
    low = placed - (high << _LOW_BITS)
    return np.stack([high.astype(np.float32), low.astype(np.float32) / (1 << _LOW_BITS)])


def bilinear(source: int, target: int) -> Taps:
    """Of Image.Resampling.BILINEAR."""
    return filter_taps(BILINEAR, source, target)


def bicubic(source: int, target: int) -> Taps:
    """Of Image.Resampling.BICUBIC."""
    return filter_taps(BICUBIC, source, target)


def lanczos(source: int, target: int) -> Taps:
    """Of Image.Resampling.LANCZOS."""
    return filter_taps(LANCZOS, source, target)


def begins_with_height(source_px: Sequence[int], target_px: Sequence[int]) -> bool:
    """Whether Pillow (from 13.0 on) scales the height first, from one (width, height) to another.

    In between it rounds to levels, so the order changes pixels. That it is this rule was found by trying all sizes.
    """
    (width, height), (new_width, new_height) = source_px, target_px
    return new_height < height and height - new_height > 2 * (width - new_width)
