"""The steps that all search methods share: candidates by a cheap score, then their exact distances, then the k nearest.

Exact distances come from differences, not from a product, so that a distance near 0 is as exact as a large one. They do
not depend on how the work was divided into blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from patchserve_server.engine.search.bank_index import BankIndex
from patchserve_server.engine.search.row_exclusion import RowExclusion
from patchserve_server.engine.search.scratch import ScratchBudget

SPARE_CANDIDATES = 2  # in addition to k; they usually prove that no other row is among the k nearest


@dataclass(frozen=True, slots=True, eq=False)
class Search:
    """One search for the k nearest rows of a bank.

    Inside this class, row P (one past the last) means "no row".
    """

    index: BankIndex
    k: int  # 1..P
    scratch: ScratchBudget
    exclusion: RowExclusion

    def for_queries(self, queries: slice | Tensor) -> Search:
        """The same search for a part of the queries."""
        return replace(self, exclusion=self.exclusion.for_queries(queries))

    def empty_results(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Distances (Q, k) float32 and rows (Q, k) int64, to be filled in."""
        distances = queries.new_empty((len(queries), self.k))
        return distances, torch.empty((len(queries), self.k), dtype=torch.int64, device=queries.device)

    def candidates(self, score_block: Callable[[slice], Tensor], queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The lowest scores (Q, count), ascending, and their rows; infinity and row P if there are fewer.

        Args:
            score_block: returns the scores (Q, len(rows)) for a slice of the bank's rows. They may be changed in place.
            queries: (Q, ...) in the precision of the scores.
            count: how many candidates for each query.
        """
        total = len(self.index)
        step = self.scratch.rows_per_block(len(queries), queries.dtype)
        best, rows = torch.empty(0), torch.empty(0)  # the first block replaces them; a bank is never empty
        for start in range(0, total, step):
            block = slice(start, min(start + step, total))
            scores = score_block(block)
            self.exclusion.apply(scores, block)
            lowest, columns = scores.topk(min(count, scores.shape[1]), dim=1, largest=False)
            block_rows = torch.where(lowest.isinf(), total, columns + start)
            if not start:
                best, rows = lowest, block_rows
                continue
            best, rows = torch.cat((best, lowest), dim=1), torch.cat((rows, block_rows), dim=1)
            best, order = best.topk(min(count, best.shape[1]), dim=1, largest=False)
            rows = rows.gather(1, order)
        return best, rows

    def distances(self, queries: Tensor, rows: Tensor) -> Tensor:
        """Exact distances (Q, C) to the rows (Q, C); infinity to row P."""
        patches = self.index.patches
        distances = torch.empty(rows.shape, dtype=queries.dtype, device=queries.device)
        size = max(1, self.scratch.rows_per_refinement() // rows.shape[1])
        buffer = queries.new_empty((min(size, len(queries)) * rows.shape[1], queries.shape[1]))  # reused
        for start in range(0, len(queries), size):
            part = slice(start, start + size)
            part_rows = rows[part].clamp(max=len(patches) - 1)
            differences = buffer[: part_rows.numel()]
            torch.index_select(patches, 0, part_rows.flatten(), out=differences)
            differences = differences.view(*part_rows.shape, -1)
            differences -= queries[part, None]
            torch.linalg.vector_norm(differences, dim=2, out=distances[part])
        return distances.masked_fill_(rows == len(patches), torch.inf)

    def complete_distances(self, queries: Tensor, rows: Tensor, first_distances: Tensor, is_open: Tensor) -> Tensor:
        """Exact distances (Q, C) to the rows (Q, C) that may be among the k nearest; infinity to the other rows.

        Args:
            queries: (Q, D) float32.
            rows: (Q, C) int64.
            first_distances: (Q, F), the known distances to the first F rows of each query.
            is_open: (Q, C) bool: which of the rows may be among the k nearest.
        """
        known_count = first_distances.shape[1]
        unknown = is_open[:, known_count:]
        distances = torch.cat((first_distances, first_distances.new_full(unknown.shape, torch.inf)), dim=1)
        for pairs in torch.split(unknown.nonzero(), self.scratch.rows_per_refinement()):
            query, column = pairs[:, 0], pairs[:, 1] + known_count
            distances[query, column] = self.distances(queries[query], rows[query, column, None])[:, 0]
        return distances

    def k_nearest(self, distances: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The k nearest (Q, k) of rows (Q, C), equal distances by row; row -1 if there are fewer."""
        rows, order = rows.sort(dim=1)
        distances, order = distances.gather(1, order).sort(dim=1, stable=True)
        rows = rows.masked_fill(rows == len(self.index), -1).gather(1, order)
        return distances[:, : self.k], rows[:, : self.k]
