"""Euclidean nearest neighbors in a memory bank, in one thread."""

from __future__ import annotations

import torch
from torch import Tensor

from patchserve_server.engine.search.bank_index import BankIndex
from patchserve_server.engine.search.candidates import Search
from patchserve_server.engine.search.exact import search_exactly
from patchserve_server.engine.search.ivf_search import search_ivf
from patchserve_server.engine.search.near_places import NearPlaces
from patchserve_server.engine.search.row_exclusion import RowExclusion
from patchserve_server.engine.search.scratch import DEFAULT_MEMORY_LIMIT_BYTES, ScratchBudget


def nearest(
    queries: Tensor,
    index: BankIndex,
    k: int,
    *,
    memory_limit_bytes: int = DEFAULT_MEMORY_LIMIT_BYTES,
    exclude_groups: Tensor | None = None,
    near: NearPlaces | None = None,
) -> tuple[Tensor, Tensor]:
    """The k rows of the bank that are nearest to each query, nearest first; rows of equal distance in their order.

    The search is exact unless the bank index has an IVF index and no places are given.

    Args:
        queries: (Q, D) float32.
        index: the bank, P rows.
        k: at least 1. A bank of fewer rows gives P columns instead of k.
        memory_limit_bytes: limit of the scratch memory, without the results; one row and one query are always allowed.
        exclude_groups: (Q,) integer; query i finds no row of group exclude_groups[i].
        near: of the queries; a query finds only rows at places near to its own.

    If too few rows remain for a query, its last columns are infinity and row -1.

    Returns:
        Distances (Q, k) float32 and rows (Q, k) int64.

    Raises:
        ValueError: k is below 1, or the index lacks the groups or places that the search needs.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}.")
    k, dim = min(k, len(index)), queries.shape[1]
    exclusion = RowExclusion(index, exclude_groups, near)
    if near is not None and index.places is not None and len(queries):
        rows = near.rows_in_reach(index.places)
        if 2 * len(rows) < len(index):
            return _search_rows(queries, k, rows, exclusion, memory_limit_bytes)
    search = Search(index, k, ScratchBudget(memory_limit_bytes, dim), exclusion)
    if index.ivf is not None and index.centroids is not None and near is None:
        return search_ivf(queries, search, index.ivf, index.centroids)
    return search_exactly(queries, search)


def _search_rows(
    queries: Tensor, k: int, rows: Tensor, exclusion: RowExclusion, memory_limit_bytes: int
) -> tuple[Tensor, Tensor]:
    """The k nearest of some rows (K,) int64 of a bank, ascending: parts of them are copied and searched in turn."""
    index, dim = exclusion.index, queries.shape[1]
    copy_limit_bytes = memory_limit_bytes // 2
    best = queries.new_full((len(queries), k), torch.inf)
    best_rows = rows.new_full((len(queries), k), -1)
    for part in torch.split(rows, max(1, copy_limit_bytes // _copied_bytes_per_row(dim))) if len(rows) else ():
        copied = index.subset(part)
        scratch = ScratchBudget(memory_limit_bytes - copy_limit_bytes, dim)
        excluded = RowExclusion(copied, exclusion.exclude_groups, exclusion.near)
        distances, found = search_exactly(queries, Search(copied, min(k, len(copied)), scratch, excluded))
        found = torch.where(found < 0, found, part[found.clamp(min=0)])
        # Of equal distances the lower row comes first: it is in an earlier part.
        best, order = torch.cat((best, distances), dim=1).sort(dim=1, stable=True)
        best, best_rows = best[:, :k], torch.cat((best_rows, found), dim=1).gather(1, order)[:, :k]
    return best, best_rows


def _copied_bytes_per_row(dim: int) -> int:
    """A row with its norm and its bounds, and as much again while they are copied."""
    return 8 * dim + 64
