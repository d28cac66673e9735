"""Greedy k-center coreset (Roth et al. 2022, algorithm 1): few patches, such that every patch is near one of them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from patchserve_server.domain.reference_options import CoresetOptions
from patchserve_server.engine.search.row_norms import RowNorms

_PROJECTION_ERROR = 0.6  # Johnson-Lindenstrauss epsilon; the usual 0.9 covers about 1 % worse
_POOL = 1024  # how many of the farthest points one pass brings up to date together
_ROWS_PER_BLOCK = 4096


def coreset_count(total: int, options: CoresetOptions) -> int:
    """How many of `total` patches are selected, 1 or more."""
    if options.ratio is not None:
        return max(1, round(total * options.ratio))
    return total if options.max_patches is None else min(total, options.max_patches)


def select_coreset(
    features: Tensor, count: int, *, seed: int = 0, progress: Callable[[int, int], None] = lambda _done, _total: None
) -> Tensor:
    """Rows of a greedy k-center coreset, in order of choice: each is the farthest from all before it.

    Distances are taken in a sparse random projection. The same features and seed give the same rows.

    Args:
        features: (P, D) float32.
        count: how many rows; at most P are given.
        seed: decides the projection and the first row.
        progress: called with the rows chosen so far and in all.

    Returns:
        (min(count, P),) int64, all different.
    """
    if count < 1:
        raise ValueError(f"A coreset has at least 1 row, not {count}.")
    count = min(count, len(features))
    generator = torch.Generator().manual_seed(seed)
    points = _projected(features, generator)
    norms = RowNorms.build(points)
    remaining = torch.full((len(points),), torch.inf, device=features.device)  # squared distance to the nearest chosen
    picks = torch.randint(len(points), (1,), generator=generator).to(features.device)
    chosen = [picks]
    done = 1
    progress(done, count)
    while done < count:
        _approach(remaining, points, norms, picks)
        picks = _next_picks(remaining, points, norms, count - done)
        chosen.append(picks)
        done += len(picks)
        progress(done, count)
    return torch.cat(chosen)


def _approach(remaining: Tensor, points: Tensor, norms: RowNorms, picks: Tensor) -> None:
    """Lowers `remaining` in place by the new picks, and rules the picks themselves out.

    With c the center, |p - q|^2 = |p - c|^2 + |q - c|^2 + 2 c(q - c) - 2 p(q - c): only the picks are centered, which
    costs no copy of the points.
    """
    centered = points[picks] - norms.center
    squared_norms = norms.squared.float()
    constants = squared_norms[picks] + 2 * (centered @ norms.center)
    for start in range(0, len(points), _ROWS_PER_BLOCK):
        part = slice(start, start + _ROWS_PER_BLOCK)
        nearest = torch.addmm(constants, points[part], centered.T, alpha=-2).amin(dim=1)
        torch.minimum(remaining[part], nearest.add_(squared_norms[part]), out=remaining[part])
    remaining[picks] = -torch.inf


def _next_picks(remaining: Tensor, points: Tensor, norms: RowNorms, limit: int) -> Tensor:
    """The next rows that the greedy algorithm chooses, one or more, without a pass over all points for each.

    A pick only lowers `remaining`. So while the farthest point of a pool of far ones, brought up to date, is still as
    far as any point outside the pool was at the start, it is the farthest of all.
    """
    far, pool = remaining.topk(min(_POOL + 1, len(points)))
    outside = far[-1].item() if len(pool) < len(points) else -math.inf
    near, squared_norms = points[pool] - norms.center, norms.squared[pool].float()
    picks: list[int] = []
    while len(picks) < limit:
        best = int(far.argmax())
        if picks and far[best].item() <= outside:
            break
        picks.append(best)
        distances = torch.addmv(squared_norms, near, near[best], alpha=-2).add_(squared_norms[best])
        torch.minimum(far, distances, out=far)
        far[best] = -math.inf
    return pool[picks]


def _projected(features: Tensor, generator: torch.Generator) -> Tensor:
    """Features (P, d) in the fewest dimensions that keep all distances within the error; themselves if D is no more.

    Very sparse random projection (Li et al. 2006) of density 1 / sqrt(D).
    """
    total, dim = features.shape
    error = _PROJECTION_ERROR
    components = math.ceil(4 * math.log(max(total, 2)) / (error**2 / 2 - error**3 / 3))
    if components >= dim:
        return features
    density = 1 / math.sqrt(dim)
    draws = torch.rand((dim, components), generator=generator)
    signs = (draws < density / 2).float() - (draws >= 1 - density / 2).float()
    return features @ signs.div(math.sqrt(density * components)).to(features.device)
