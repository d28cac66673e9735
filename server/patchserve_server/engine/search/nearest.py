"""Euclidean nearest neighbors in a memory bank, in one thread."""

from __future__ import annotations

from torch import Tensor

from patchserve_server.engine.search.bank_index import BankIndex
from patchserve_server.engine.search.candidates import Search
from patchserve_server.engine.search.exact import search_exactly
from patchserve_server.engine.search.ivf_search import search_ivf
from patchserve_server.engine.search.row_exclusion import RowExclusion
from patchserve_server.engine.search.scratch import DEFAULT_MEMORY_LIMIT_BYTES, ScratchBudget


def nearest(
    queries: Tensor,
    index: BankIndex,
    k: int,
    *,
    memory_limit_bytes: int = DEFAULT_MEMORY_LIMIT_BYTES,
    exclude_groups: Tensor | None = None,
    visible_places: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The k rows of the bank that are nearest to each query, nearest first; rows of equal distance in their order.

    The search is exact unless the bank index has an IVF index and no places are given.

    Args:
        queries: (Q, D) float32.
        index: the bank, P rows.
        k: at least 1. A bank of fewer rows gives P columns instead of k.
        memory_limit_bytes: limit of the scratch memory, without the results; one row and one query are always allowed.
        exclude_groups: (Q,) integer; query i finds no row of group exclude_groups[i].
        visible_places: (Q, G) bool; query i finds a row at place g only if [i, g] is true.
            If too few rows remain, the last columns are infinity and row -1.

    Returns:
        Distances (Q, k) float32 and rows (Q, k) int64.

    Raises:
        ValueError: k is below 1, or the index lacks the groups or places that the search needs.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}.")
    scratch = ScratchBudget(memory_limit_bytes, queries.shape[1])
    search = Search(index, min(k, len(index)), scratch, RowExclusion(index, exclude_groups, visible_places))
    if index.ivf is not None and index.centroids is not None and visible_places is None:
        return search_ivf(queries, search, index.ivf, index.centroids)
    return search_exactly(queries, search)
