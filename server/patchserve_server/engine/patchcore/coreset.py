"""Greedy k-center coreset (Roth et al. 2022, algorithm 1): a few patches, with every patch near one of them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from patchserve_server.domain.reference_options import CoresetOptions
from patchserve_server.engine.search.row_norms import RowNorms

_PROJECTION_ERROR = 0.6  # Johnson-Lindenstrauss epsilon; the usual 0.9 covers about 1 % worse
_POOL = 1024  # how many of the farthest points are updated together in one pass
_ROWS_PER_BLOCK = 4096


def coreset_count(total: int, options: CoresetOptions) -> int:
    """How many of `total` patches are selected, 1 or more."""
    if options.ratio is not None:
        return max(1, round(total * options.ratio))
    return total if options.max_patches is None else min(total, options.max_patches)


def select_coreset(
    features: Tensor, count: int, *, seed: int = 0, progress: Callable[[int, int], None] = lambda _done, _total: None
) -> Tensor:
    """Rows of a greedy k-center coreset, in the order of selection. Each is the farthest from all rows before it.

    Distances are measured in a sparse random projection. The same features and seed give the same rows.

    Args:
        features: (P, D) float32.
        count: how many rows; P if it is larger.
        seed: decides the projection and the first row.
        progress: called with the number of rows selected so far, and of all rows to select.

    Returns:
        (min(count, P),) int64, all different.
    """
    if count < 1:
        raise ValueError(f"A coreset has at least 1 row, not {count}.")
    count = min(count, len(features))
    generator = torch.Generator().manual_seed(seed)
    points = _projected(features, generator)
    norms = RowNorms.build(points)
    squared_distances = torch.full((len(points),), torch.inf, device=features.device)  # to the nearest selected row
    new_rows = torch.randint(len(points), (1,), generator=generator).to(features.device)
    selected = [new_rows]
    done = 1
    progress(done, count)
    while done < count:
        _update_distances(squared_distances, points, norms, new_rows)
        new_rows = _next_rows(squared_distances, points, norms, count - done)
        selected.append(new_rows)
        done += len(new_rows)
        progress(done, count)
    return torch.cat(selected)


def _update_distances(squared_distances: Tensor, points: Tensor, norms: RowNorms, new_rows: Tensor) -> None:
    """Updates `squared_distances` in place for the new rows, and excludes these rows from selection.

    With c the center, |p - q|^2 = |p - c|^2 + |q - c|^2 + 2 c(q - c) - 2 p(q - c): only the new rows are centered, so
    that the points are not copied.
    """
    centered = points[new_rows] - norms.center
    squared_norms = norms.squared.float()
    constants = squared_norms[new_rows] + 2 * (centered @ norms.center)
    for start in range(0, len(points), _ROWS_PER_BLOCK):
        part = slice(start, start + _ROWS_PER_BLOCK)
        nearest = torch.addmm(constants, points[part], centered.T, alpha=-2).amin(dim=1)
        torch.minimum(squared_distances[part], nearest.add_(squared_norms[part]), out=squared_distances[part])
    squared_distances[new_rows] = -torch.inf


def _next_rows(squared_distances: Tensor, points: Tensor, norms: RowNorms, limit: int) -> Tensor:
    """The next rows that the greedy algorithm selects, one or more, with a single pass over all points.

    Selecting a row only reduces distances. So only the distances of a pool of the farthest points are updated: while
    the farthest of the pool is still farther than every point outside was at the start, it is the farthest of all.
    """
    far, pool = squared_distances.topk(min(_POOL + 1, len(points)))
    farthest_outside = far[-1].item() if len(pool) < len(points) else -math.inf
    centered, squared_norms = points[pool] - norms.center, norms.squared[pool].float()
    new_rows: list[int] = []
    while len(new_rows) < limit:
        best = int(far.argmax())
        if new_rows and far[best].item() <= farthest_outside:
            break
        new_rows.append(best)
        distances = torch.addmv(squared_norms, centered, centered[best], alpha=-2).add_(squared_norms[best])
        torch.minimum(far, distances, out=far)
        far[best] = -math.inf
    return pool[new_rows]


def _projected(features: Tensor, generator: torch.Generator) -> Tensor:
    """Features (P, d), d the fewest dimensions that keep distances within the error; unchanged if D is not above d.

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
