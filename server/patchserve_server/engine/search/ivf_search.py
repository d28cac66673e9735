"""Approximate search: a query is compared only with the rows in the nearest cells. Their distances are exact."""

from __future__ import annotations

import torch
from torch import Tensor

from patchserve_server.engine.search.bank_index import BankIndex
from patchserve_server.engine.search.candidates import Search
from patchserve_server.engine.search.exact import search_by_product, search_exactly
from patchserve_server.engine.search.ivf_index import NPROBE, IvfIndex
from patchserve_server.engine.search.row_exclusion import RowExclusion


def search_ivf(queries: Tensor, search: Search, ivf: IvfIndex, centroids: BankIndex) -> tuple[Tensor, Tensor]:
    """The k nearest rows in the cells that each query is compared with.

    A query whose cells hold fewer than k rows is compared with all rows.

    Args:
        queries: (Q, D) float32.
        search: may exclude groups, but not places.
        ivf: of the bank.
        centroids: of the cells.

    Returns:
        Distances (Q, k) float32 and rows (Q, k) int64.
    """
    distances, rows = search.empty_results(queries)
    probes = Search(centroids, min(NPROBE, len(centroids)), search.scratch, RowExclusion(centroids, None, None))
    for part in search.scratch.query_slices(len(queries)):
        cells = search_exactly(queries[part], probes)[1]
        distances[part], rows[part] = _search_cells(queries[part], cells, search.for_queries(part), ivf)
    return distances, rows


def _search_cells(queries: Tensor, cells: Tensor, search: Search, ivf: IvfIndex) -> tuple[Tensor, Tensor]:
    rows = _rows_in_cells(queries, cells, search, ivf)
    rows = rows.masked_fill(rows < 0, len(search.index))
    distances, rows = search.k_nearest(search.distances(queries, rows), rows)
    is_short = rows[:, -1] < 0
    if bool(is_short.any()):
        distances[is_short], rows[is_short] = search_by_product(queries[is_short], search.for_queries(is_short))
    return distances, rows


def _rows_in_cells(queries: Tensor, cells: Tensor, search: Search, ivf: IvfIndex) -> Tensor:
    """(Q, k) int64; -1 if the cells hold fewer rows that are not excluded."""
    groups, excluded = search.index.groups, search.exclusion.exclude_groups
    if groups is None or excluded is None:
        return ivf.nearest(queries, cells, search.k)
    rows = torch.empty((len(queries), search.k), dtype=torch.int64)
    for group in set(excluded.tolist()):
        selected = excluded == group
        rows[selected] = ivf.nearest(queries[selected], cells[selected], search.k, groups != group)
    return rows
