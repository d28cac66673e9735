"""Scoring: from distances to anomaly maps and raw scores."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from patchserve_server.domain.images import AnomalyMap
from patchserve_server.domain.input_options import InputShape
from patchserve_server.engine.patchcore.patch_scores import WorstPatches

NOTEBOOK_NEIGHBORS = 9
PAPER_NEIGHBORS = 1
REWEIGHTING_NEIGHBORS = 9

_SPACING_POWER = 0.4
_TOP_SHARE = 0.03
_LARGEST_AREA = 0.2

_SMOOTHING_SIGMA_PX = 4.0
SMOOTHING_REACH_PX = 16  # 4 sigma to either side


def mean_of_nearest(distances: Tensor, *, is_complete: bool = False) -> Tensor:
    """Patch scores (Q,) of the NOTEBOOK profile from distances (Q, 9): their mean.

    Infinite distances (missing neighbors in a small bank) do not count. If all are infinite, the score is infinite.
    `is_complete`: none is infinite, and nothing looks for it.
    """
    if is_complete:
        return distances.mean(dim=-1)
    present = distances.isfinite()
    means = distances.where(present, 0.0).sum(dim=-1) / present.sum(dim=-1).clamp(min=1)
    return means.where(present.any(dim=-1), torch.inf)


def spaced_score(patch_scores: Tensor, spacing: Tensor, *, patches_per_tile: int) -> Tensor:
    """The raw image score (B,) of the NOTEBOOK profile: the mean of the highest 3 % of its patches (docs/adr/0006).

    Each patch score is first divided by the spacing of its neighbors to the power 0.4. The spacing is the distance
    between the reference's own patches there: if intact items differ a lot, a large distance is less unusual.

    Args:
        patch_scores: (B, Q).
        spacing: (B, Q) of the neighbors of each patch, 1 on average.
        patches_per_tile: the share is taken of these, or of all if they are fewer. So damage is not lost among the many
            patches of a large image.
    """
    return _highest(patch_scores, spacing, _TOP_SHARE, patches_per_tile).mean(dim=1)


def verdict_score(patch_scores: Tensor, spacing: Tensor) -> Tensor:
    """The raw image score (B,) of the VERDICT profile without tiles: of damage of any area (docs/adr/0016).

    The mean of the A highest patch scores shows damage of A patches best. A is not known, so this is the mean over all
    areas from one patch to a fifth of the image, in which each doubling of the area counts the same.

    Args:
        patch_scores: (B, Q).
        spacing: (B, Q) of the neighbors of each patch, 1 on average; all 1 if the reference does not use it.
    """
    highest = _highest(patch_scores, spacing, _LARGEST_AREA, patch_scores.shape[1])
    areas = torch.arange(1, highest.shape[1] + 1, device=highest.device)
    return (highest.cumsum(dim=1) / areas / areas).sum(dim=1) / areas.reciprocal().sum()


def highest_score(patch_scores: Tensor, spacing: Tensor) -> Tensor:
    """The raw image score (B,) of the VERDICT profile with tiles: that of the highest patch (docs/adr/0016).

    Args:
        patch_scores: (B, Q).
        spacing: (B, Q), as for `verdict_score`.
    """
    return (patch_scores / spacing.pow(_SPACING_POWER)).amax(dim=1)


def _highest(patch_scores: Tensor, spacing: Tensor, share: float, patches_per_tile: int) -> Tensor:
    """The highest spaced scores (B, K), highest first. K is a share of the patches of a tile."""
    scores = patch_scores / spacing.pow(_SPACING_POWER)
    count = max(1, round(share * min(patches_per_tile, scores.shape[1])))
    return scores.topk(count, dim=1).values


def mean_spacing(spacing: Tensor, rows: Tensor, *, is_complete: bool = False) -> Tensor:
    """The mean spacing (...) of the found rows (..., k). Row -1 means none; without rows it is 1.

    `is_complete`: none is missing, and nothing looks for it.
    """
    if is_complete:
        return spacing[rows].mean(dim=-1)
    present = rows >= 0
    sums = spacing[rows.clamp(min=0)].where(present, 0.0).sum(dim=-1)
    return (sums / present.sum(dim=-1).clamp(min=1)).where(present.any(dim=-1), 1.0)


def reweighted_score(
    candidates: WorstPatches,
    vectors_of: Callable[[Tensor], Tensor],
    nearest: Callable[[Tensor], tuple[Tensor, Tensor]],
) -> Tensor:
    """The raw image score of the PAPER profile (Roth et al. 2022, eq. 7, b = 9).

    The distance of the most anomalous patch to its nearest bank patch m*, times a weight: 1 minus the softmax share of
    m* among the 9 bank patches nearest to m*. In a bank of fewer than 9 rows the weight is 1.

    Args:
        candidates: the worst patches of each part of each image, or all of its patches.
        vectors_of: the vectors (B, ..., D) of rows (B, ...) of the bank.
        nearest: distances (B, 9) and rows (B, 9) of the neighbors of rows (B, D); fewer columns of a smaller bank.

    Returns:
        (B,) float32.
    """
    scores, worst = candidates.distances.max(dim=1)
    each = torch.arange(len(scores), device=scores.device)
    support = vectors_of(candidates.rows[each, worst])  # m*, (B, D)
    support_distances, neighbors = nearest(support)
    if neighbors.shape[1] < REWEIGHTING_NEIGHBORS:
        return scores
    vectors = candidates.vectors[each, worst]
    distances = torch.linalg.vector_norm(vectors_of(neighbors) - vectors[:, None], dim=2)
    weights = 1 - distances.softmax(dim=1)[:, 0]
    return torch.where(support_distances[:, -1].isfinite(), weights * scores, scores)


def notebook_map(patch_scores: NDArray[np.float32], shape: InputShape) -> AnomalyMap:
    """Patch scores (h, w) scaled bilinearly to this shape, as the notebook does."""
    stretched = cv2.resize(patch_scores, shape.size_px, interpolation=cv2.INTER_LINEAR)
    return stretched.astype(np.float32, copy=False)


def paper_map(patch_scores: NDArray[np.float32], shape: InputShape) -> AnomalyMap:
    """Patch scores (h, w) scaled bilinearly, then smoothed (Gaussian, sigma 4 px, cut at 4 sigma, mirrored border)."""
    kernel = (2 * SMOOTHING_REACH_PX + 1, 2 * SMOOTHING_REACH_PX + 1)
    stretched = notebook_map(patch_scores, shape)
    smooth = cv2.GaussianBlur(stretched, kernel, _SMOOTHING_SIGMA_PX, borderType=cv2.BORDER_REFLECT)
    return smooth.astype(np.float32, copy=False)


def smooth_axis(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Columns (N, M), each smoothed as `paper_map` does it."""
    kernel = (1, 2 * SMOOTHING_REACH_PX + 1)
    smooth = cv2.GaussianBlur(columns, kernel, sigmaX=0, sigmaY=_SMOOTHING_SIGMA_PX, borderType=cv2.BORDER_REFLECT)
    return smooth.astype(np.float64).reshape(columns.shape)
