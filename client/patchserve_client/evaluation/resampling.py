"""Bootstrap: metrics of test sets that are drawn from the test images, to see how much chance is in them.

Intact and defective images are drawn separately, as many as there are. All settings of a sweep get the same draws:
their differences are paired.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 4000
_SEED = 0
_CELLS = 4_000_000  # of an array at once: 32 MB of float64

Draws: TypeAlias = NDArray[np.int16]
"""(B, N): how often each of N images is in each of B test sets."""
Labels: TypeAlias = NDArray[np.bool_]
Ratios: TypeAlias = NDArray[np.floating[Any]]


def draw(defective: Labels, count: int = RESAMPLES, seed: int = _SEED) -> Draws:
    """Draw `count` test sets with the same number of intact and of defective images as the labels (N,)."""
    rng = np.random.default_rng(seed)
    draws = np.zeros((count, defective.size), np.int16)
    for chosen in (defective, ~defective):
        images = int(chosen.sum())
        if images:
            draws[:, chosen] = rng.multinomial(images, np.full(images, 1 / images), size=count)
    return draws


def aurocs(defective: Labels, ratios: Ratios, draws: Draws) -> NDArray[np.float64]:
    """The image AUROC of each test set: (B,). Equal ratios count half."""

    def of(intact: NDArray[np.int64], damaged: NDArray[np.int64]) -> NDArray[np.float64]:
        below = np.cumsum(intact, axis=1) - intact / 2
        return np.asarray((damaged * below).sum(axis=1) / (damaged.sum(axis=1) * intact.sum(axis=1)))

    return _by_level(defective, ratios, draws, of)


def average_precisions(defective: Labels, ratios: Ratios, draws: Draws) -> NDArray[np.float64]:
    """The average precision of each test set: (B,)."""

    def of(intact: NDArray[np.int64], damaged: NDArray[np.int64]) -> NDArray[np.float64]:
        found = np.cumsum(damaged[:, ::-1], axis=1)[:, ::-1]  # at this ratio or above
        called = found + np.cumsum(intact[:, ::-1], axis=1)[:, ::-1]
        return np.asarray((damaged * found / np.maximum(called, 1)).sum(axis=1) / damaged.sum(axis=1))

    return _by_level(defective, ratios, draws, of)


def balanced_accuracies(defective: Labels, ratios: Ratios, draws: Draws) -> NDArray[np.float64]:
    """The balanced accuracy of each test set at the threshold 1: (B,)."""
    is_right = (ratios > 1) == defective
    found, passed = (
        draws[:, chosen] @ is_right[chosen].astype(np.int64) / chosen.sum() for chosen in (defective, ~defective)
    )
    return np.asarray((found + passed) / 2)


def _by_level(
    defective: Labels,
    ratios: Ratios,
    draws: Draws,
    metric: Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float64]],
) -> NDArray[np.float64]:
    """Apply a metric to the number of intact and of defective images at each ratio, the lowest first: (B, levels)."""
    order = np.argsort(ratios, kind="stable")
    starts = np.unique(ratios[order], return_index=True)[1]

    def counts(block: Draws, chosen: Labels) -> NDArray[np.int64]:
        return np.add.reduceat(np.where(chosen[order], block[:, order], 0).astype(np.int64), starts, axis=1)

    blocks = np.array_split(draws, math.ceil(draws.size / _CELLS))
    return np.concatenate([metric(counts(block, ~defective), counts(block, defective)) for block in blocks])
