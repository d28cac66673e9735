"""Exact search with candidates by bfloat16 bounds."""

from __future__ import annotations

import torch
from torch import Tensor

from patchserve_server.engine.search.bfloat16_bounds import Bfloat16Bounds
from patchserve_server.engine.search.candidates import SPARE_CANDIDATES, Search

LEAST_QUERIES = 64  # for fewer queries the bounds cost more than they save

_TRIAL_STRIDE = 8  # every 8th query is tried first
_LARGEST_UNRESOLVED_SHARE = 0.25  # of the trial; beyond it the bounds cost more than they save


def fill_by_bounds(distances: Tensor, rows: Tensor, queries: Tensor, search: Search, bounds: Bfloat16Bounds) -> Tensor:
    """Fills in the results of the queries that the bounds resolve, and returns the others (N,) int64.

    Some queries from everywhere are tried first. Where the bounds resolve too few of them, the others are not tried.

    Args:
        distances: (Q, k) float32, filled in.
        rows: (Q, k) int64, filled in.
        queries: (Q, D) float32.
        search: the search for all queries.
        bounds: of the bank.
    """

    def fill(selected: Tensor) -> Tensor:
        found = _search_by_bounds(queries[selected], search.for_queries(selected), bounds)
        distances[selected], rows[selected], is_unresolved = found
        return selected[is_unresolved]

    positions = torch.arange(len(queries), device=queries.device)
    trial, others = positions[::_TRIAL_STRIDE], positions[positions % _TRIAL_STRIDE != 0]
    unresolved = [fill(trial[part]) for part in search.scratch.query_slices(len(trial))]
    if sum(map(len, unresolved)) > _LARGEST_UNRESOLVED_SHARE * len(trial):
        return torch.cat((*unresolved, others))
    return torch.cat((*unresolved, *(fill(others[part]) for part in search.scratch.query_slices(len(others)))))


def _search_by_bounds(queries: Tensor, search: Search, bounds: Bfloat16Bounds) -> tuple[Tensor, Tensor, Tensor]:
    """The k nearest rows, distances first, and which queries (Q,) bool the bounds do not resolve."""
    index, k = search.index, search.k
    # Bounds are wider than float32 errors, so they need more candidates. Above 1/64 of few rows topk gets slow.
    count = min(len(index), 3 * k + 12, max(2 * k + 6, len(index) // 64))
    columns = bounds.query_columns(queries)
    lowest, rows = search.candidates(lambda block: columns @ bounds.columns[block].T, columns, count)
    first = search.distances(queries, rows[:, : k + SPARE_CANDIDATES])
    kth_distance = first.kthvalue(k, dim=1).values
    is_open = (lowest <= bounds.highest_bound(kth_distance)[:, None]) & (rows < len(index))
    nearest = search.k_nearest(search.complete_distances(queries, rows, first, is_open), rows)
    return *nearest, is_open[:, -1] & (count < len(index))
