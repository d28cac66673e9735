"""Exact search with candidates by lower bounds of distances."""

from __future__ import annotations

import torch
from torch import Tensor

from patchserve_server.engine.search.block_minima import BlockMinima, padded
from patchserve_server.engine.search.bounds import QueryBounds, RowBounds
from patchserve_server.engine.search.candidates import SPARE_CANDIDATES, Search

LEAST_QUERIES = 64  # with fewer queries the bounds cost more than they save

_ROWS_PER_BLOCK = 4096
# How many rows of a block may be open for one query: an exact distance costs as much as 60 values of a float32 product.
_OPEN_SHARE = 1 / 32
_LEAST_OPEN = 4  # times k
_LARGEST_UNRESOLVED_SHARE = 0.25  # of the queries after the first block; above it the bounds cost more than they save


def fill_by_bounds(distances: Tensor, rows: Tensor, queries: Tensor, search: Search, bounds: RowBounds) -> Tensor:
    """Fills in the results of the queries that the bounds resolve, and returns the other queries (N,) int64.

    If the bounds resolve too few queries of a pass, the next ones are not tried.

    Args:
        distances: (Q, k) float32, filled in.
        rows: (Q, k) int64, filled in.
        queries: (Q, D) float32.
        search: the search for all queries.
        bounds: of the bank.
    """
    unresolved, positions = [], torch.arange(len(queries), device=queries.device)
    for part in search.scratch.query_slices(len(queries)):
        bounded = _BoundedSearch(queries[part], search.for_queries(part), bounds.of_queries(queries[part]))
        is_unresolved = bounded.run()
        distances[part], rows[part] = bounded.nearest()
        unresolved.append(positions[part][is_unresolved])
        if bool(is_unresolved.all()):
            return torch.cat((*unresolved, positions[part.stop :]))
    return torch.cat(unresolved) if unresolved else positions


class _BoundedSearch:
    """One pass over the bank. Each query has a limit that falls: the distance of the k-th nearest row found so far.

    A row whose bound is above the limit is farther away. The others get their exact distances, which lower the limit
    for the next block.
    """

    def __init__(self, queries: Tensor, search: Search, bounds: QueryBounds) -> None:
        self._queries = queries
        self._search = search
        self._bounds = bounds
        self._distances = queries.new_full((len(queries), search.k), torch.inf)
        self._rows = torch.full(self._distances.shape, len(search.index), device=queries.device)
        self._limits = queries.new_full((len(queries),), torch.inf)
        self._is_unresolved = torch.zeros(len(queries), dtype=torch.bool, device=queries.device)

    def run(self) -> Tensor:
        """Searches all rows. Returns which queries (Q,) bool the bounds do not resolve."""
        total = len(self._search.index)
        step = min(_ROWS_PER_BLOCK, self._search.scratch.rows_per_block(len(self._queries), self._queries.dtype))
        buffer = self._queries.new_empty(len(self._queries) * padded(min(step, total)))
        for start in range(0, total, step):
            block = slice(start, min(start + step, total))
            minima = self._block_minima(block, buffer)
            minima = self._lower_limits(minima, start) if start else self._find_limits(minima)
            self._add_open(minima, start)
            if not start and float(self._is_unresolved.float().mean()) > _LARGEST_UNRESOLVED_SHARE:
                return torch.ones_like(self._is_unresolved)
        return self._is_unresolved

    def nearest(self) -> tuple[Tensor, Tensor]:
        """Distances (Q, k) float32 and rows (Q, k) int64; -1 if there are fewer."""
        return self._distances, self._rows.masked_fill(self._rows == len(self._search.index), -1)

    def _block_minima(self, block: slice, buffer: Tensor) -> BlockMinima:
        """The bounds of a block; infinity for rows that are excluded, and for columns beyond the block."""
        rows = block.stop - block.start
        scores = buffer[: len(self._queries) * padded(rows)].view(len(self._queries), -1)
        self._bounds.fill(block, scores[:, :rows])
        scores[:, rows:] = torch.inf
        self._search.exclusion.apply(scores[:, :rows], block)
        return BlockMinima.of(scores)

    def _find_limits(self, minima: BlockMinima) -> BlockMinima:
        """The first limits: from the rows with the lowest bounds of the first block. Returns the block without them."""
        bounds, columns = minima.lowest(self._search.k + SPARE_CANDIDATES)
        rows = torch.where(bounds == torch.inf, len(self._search.index), columns)
        self._merge(self._search.distances(self._queries, rows), rows)
        self._is_unresolved |= ~self._limits.isfinite()
        self._limits.masked_fill_(self._is_unresolved, -torch.inf)
        return BlockMinima.of(minima.scores.scatter_(1, columns, torch.inf))

    def _lower_limits(self, minima: BlockMinima, start: int) -> BlockMinima:
        """The same for a later block, where few of its rows may be open, or many."""
        count = self._search.k + SPARE_CANDIDATES
        if float(minima.group_counts(self._limits).float().mean()) < count:
            return minima  # all of them at once cost less
        bounds, columns = minima.lowest(count)
        queries, place = (bounds > self._limits[:, None]).logical_not_().nonzero(as_tuple=True)
        self._add(queries, columns[queries, place], start)
        return BlockMinima.of(minima.scores.scatter_(1, columns, torch.inf))

    def _add_open(self, minima: BlockMinima, start: int) -> None:
        """Adds all rows of a block that may be among the k nearest."""
        most = max(_LEAST_OPEN * self._search.k, int(_OPEN_SHARE * minima.scores.shape[1]))
        self._is_unresolved |= minima.group_counts(self._limits) > most
        self._limits.masked_fill_(self._is_unresolved, -torch.inf)
        self._add(*minima.not_above(self._limits), start)

    def _add(self, queries: Tensor, columns: Tensor, start: int) -> None:
        """Takes rows of a block, not yet known, among the nearest: queries (N,), ascending, and columns (N,)."""
        if not len(queries):
            return
        counts = queries.bincount(minlength=len(self._queries))
        place = torch.arange(len(queries), device=queries.device) - (counts.cumsum(0) - counts)[queries]
        rows = self._rows.new_full((len(self._queries), int(counts.max())), len(self._search.index))
        distances = self._distances.new_full(rows.shape, torch.inf)
        rows[queries, place] = columns + start
        distances[queries, place] = self._search.pair_distances(self._queries, queries, columns + start)
        self._merge(distances, rows)

    def _merge(self, distances: Tensor, rows: Tensor) -> None:
        merged = torch.cat((self._distances, distances), dim=1), torch.cat((self._rows, rows), dim=1)
        self._distances, self._rows = self._search.merge(*merged)
        limits = self._bounds.limits(self._distances[:, -1])
        self._limits = limits.masked_fill_(self._is_unresolved, -torch.inf)  # nothing is searched for these
