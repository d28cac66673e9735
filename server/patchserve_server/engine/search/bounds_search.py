"""Exact search with candidates by bfloat16 bounds."""

from __future__ import annotations

import torch
from torch import Tensor

from patchserve_server.engine.search.bfloat16_bounds import Bfloat16Bounds
from patchserve_server.engine.search.candidates import SPARE_CANDIDATES, Search

LEAST_QUERIES = 64  # with fewer queries the bounds cost more than they save

_TRIAL_STRIDE = 8  # every 8th query is searched first
_LARGEST_UNRESOLVED_SHARE = 0.25  # of the trial; above it the bounds cost more than they save


def fill_by_bounds(distances: Tensor, rows: Tensor, queries: Tensor, search: Search, bounds: Bfloat16Bounds) -> Tensor:
    """Fills in the results of the queries that the bounds resolve, and returns the other queries (N,) int64.

    A sample of the queries is tried first. If the bounds resolve too few of them, the other queries are not tried.

    Args:
        distances: (Q, k) float32, filled in.
        rows: (Q, k) int64, filled in.
        queries: (Q, D) float32.
        search: the search for all queries.
        bounds: of the bank.
    """

    def fill(selected: Tensor) -> Tensor:
        results = _search_by_bounds(queries[selected], search.for_queries(selected), bounds)
        distances[selected], rows[selected], is_unresolved = results
        return selected[is_unresolved]

    positions = torch.arange(len(queries), device=queries.device)
    trial, remaining = positions[::_TRIAL_STRIDE], positions[positions % _TRIAL_STRIDE != 0]
    unresolved = [fill(trial[part]) for part in search.scratch.query_slices(len(trial))]
    if sum(map(len, unresolved)) > _LARGEST_UNRESOLVED_SHARE * len(trial):
        return torch.cat((*unresolved, remaining))
    return torch.cat((*unresolved, *(fill(remaining[part]) for part in search.scratch.query_slices(len(remaining)))))


def _search_by_bounds(queries: Tensor, search: Search, bounds: Bfloat16Bounds) -> tuple[Tensor, Tensor, Tensor]:
    """The k nearest rows, distances first, and which queries (Q,) bool the bounds do not resolve."""
    index, k = search.index, search.k
    # Bounds are wider than float32 errors, so they need more candidates. topk is slow for more than 1/64 of the rows.
    count = min(len(index), 3 * k + 12, max(2 * k + 6, len(index) // 64))
    columns = bounds.query_columns(queries)
    lowest, rows = search.candidates(lambda block: columns @ bounds.columns[block].T, columns, count)
    first_distances = search.distances(queries, rows[:, : k + SPARE_CANDIDATES])
    kth_distance = first_distances.kthvalue(k, dim=1).values
    is_open = (lowest <= bounds.highest_bound(kth_distance)[:, None]) & (rows < len(index))
    nearest = search.k_nearest(search.complete_distances(queries, rows, first_distances, is_open), rows)
    return *nearest, is_open[:, -1] & (count < len(index))
