"""Exact search: candidates by bounds if the bank has them, otherwise by a float32 or float64 product."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from patchserve_server.engine.search.bank_index import BankIndex
from patchserve_server.engine.search.bounds_search import LEAST_QUERIES, fill_by_bounds
from patchserve_server.engine.search.candidates import SPARE_CANDIDATES, Search


def search_exactly(queries: Tensor, search: Search) -> tuple[Tensor, Tensor]:
    """The k nearest of all rows that are not excluded.

    Bounds resolve as many queries as they can; a matrix product resolves the others.

    Returns:
        Distances (Q, k) float32 and rows (Q, k) int64.
    """
    distances, rows = search.empty_results(queries)
    unresolved = None  # (N,) int64; None: all queries
    if search.index.bounds is not None and len(queries) >= LEAST_QUERIES:
        unresolved = fill_by_bounds(distances, rows, queries, search, search.index.bounds)
    for part in search.scratch.query_slices(len(queries) if unresolved is None else len(unresolved)):
        selected = part if unresolved is None else unresolved[part]
        distances[selected], rows[selected] = search_by_product(queries[selected], search.for_queries(selected))
    return distances, rows


def search_by_product(queries: Tensor, search: Search) -> tuple[Tensor, Tensor]:
    """The same, with candidates by rank in float32 or, if that is not precise enough, in float64."""
    index, k = search.index, search.k
    count = min(k + SPARE_CANDIDATES, len(index))
    centered = queries - index.norms.center
    ranks, rows = _lowest_ranks(centered, search, count)
    # The rank of a row is wrong by at most the rounding error, for the k best ranks and for the k nearest rows.
    highest = ranks[:, k - 1] + 2 * _rounding_error(centered, index)
    is_open = (ranks <= highest[:, None]) & (rows < len(index))
    is_uncertain = is_open[:, -1] & (count < len(index))
    if bool(is_uncertain.any()):
        precise = queries[is_uncertain].double() - index.norms.center
        rows[is_uncertain] = _lowest_ranks(precise, search.for_queries(is_uncertain), count)[1]
    first_distances = search.distances(queries, rows[:, :k])
    return search.k_nearest(search.complete_distances(queries, rows, first_distances, is_open), rows)


def _rounding_error(centered: Tensor, index: BankIndex) -> Tensor:
    """(Q,) bound on the error of a float32 rank: the errors of D products add up like a random walk."""
    unit = torch.finfo(torch.float32).eps
    query_norms: Tensor = torch.linalg.vector_norm(centered, dim=1)
    products = query_norms.mul(2 * math.sqrt(centered.shape[1]) * index.norms.largest)
    return products.add(index.norms.squared.max()).mul(unit)


def _lowest_ranks(centered: Tensor, search: Search, count: int) -> tuple[Tensor, Tensor]:
    """The lowest ranks (Q, count), ascending, and their rows, in the precision of the centered queries (Q, D).

    With c the center, |q - b|^2 = |q - c|^2 + 2 (q - c)c + (|b - c|^2 - 2 (q - c)b). The last bracket is the rank: it
    orders the rows in the same way as the distance. Only the queries are centered, so the bank is not copied, and still
    most of what the vectors have in common does not reduce the precision.
    """
    index, dtype = search.index, centered.dtype

    def ranks(block: slice, out: Tensor) -> None:
        norms, patches = index.norms.squared[block].to(dtype), index.patches[block].to(dtype)
        torch.addmm(norms, centered, patches.T, alpha=-2, out=out)

    return search.candidates(ranks, centered, count)
