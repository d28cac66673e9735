"""The steps that all search methods share: candidates by a cheap score, then their exact distances, then the k nearest.

Exact distances come from differences, not from a product, so that a distance near 0 is as exact as a large one. No
distance depends on how the work was divided into blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from patchserve_server.engine.search.bank_index import BankIndex
from patchserve_server.engine.search.row_exclusion import RowExclusion
from patchserve_server.engine.search.scratch import ScratchBudget

SPARE_CANDIDATES = 2  # beyond k: in most searches they show that no further row can be among the k nearest


@dataclass(frozen=True, slots=True, eq=False)
class Search:
    """One search for the k nearest rows of a bank.

    Inside of it, row P (one past the last) stands for "no row".
    """

    index: BankIndex
    k: int  # 1..P
    scratch: ScratchBudget
    exclusion: RowExclusion

    def for_queries(self, queries: slice | Tensor) -> Search:
        """The same search for some of the queries."""
        return replace(self, exclusion=self.exclusion.for_queries(queries))

    def empty_results(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Distances (Q, k) float32 and rows (Q, k) int64, to be filled in."""
        distances = queries.new_empty((len(queries), self.k))
        return distances, torch.empty((len(queries), self.k), dtype=torch.int64, device=queries.device)

    def candidates(self, score_block: Callable[[slice], Tensor], queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The lowest scores (Q, count), ascending, and their rows; infinity and row P where there are no more.

        Args:
            score_block: gives the scores (Q, len(rows)) of a slice of the bank's rows. They may be changed in place.
            queries: (Q, ...) in the precision of the scores.
            count: how many candidates for each query.
        """
        total = len(self.index)
        step = self.scratch.rows_per_block(len(queries), queries.dtype)
        best, rows = torch.empty(0), torch.empty(0)  # replaced by those of the first block: a bank has rows
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
        buffer = queries.new_empty((min(size, len(queries)) * rows.shape[1], queries.shape[1]))  # cheaper to reuse
        for start in range(0, len(queries), size):
            part = slice(start, start + size)
            part_rows = rows[part].clamp(max=len(patches) - 1)
            differences = buffer[: part_rows.numel()]
            torch.index_select(patches, 0, part_rows.flatten(), out=differences)
            differences = differences.view(*part_rows.shape, -1)
            differences -= queries[part, None]
            torch.linalg.vector_norm(differences, dim=2, out=distances[part])
        return distances.masked_fill_(rows == len(patches), torch.inf)

    def complete_distances(self, queries: Tensor, rows: Tensor, first: Tensor, is_open: Tensor) -> Tensor:
        """Exact distances (Q, C) to the rows (Q, C) that may be among the k nearest; infinity to the others.

        Args:
            queries: (Q, D) float32.
            rows: (Q, C) int64.
            first: (Q, F), the distances to the first F rows of each query, which are known.
            is_open: (Q, C) bool: which of the rows may be among the k nearest.
        """
        known = first.shape[1]
        distances = torch.cat((first, first.new_full(is_open[:, known:].shape, torch.inf)), dim=1)
        for pairs in torch.split(is_open[:, known:].nonzero(), self.scratch.rows_per_refinement()):
            query, column = pairs[:, 0], pairs[:, 1] + known
            distances[query, column] = self.distances(queries[query], rows[query, column, None])[:, 0]
        return distances

    def k_nearest(self, distances: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The k nearest (Q, k) of rows (Q, C), the lower row first among equals; row -1 where there are fewer."""
        rows, order = rows.sort(dim=1)
        distances, order = distances.gather(1, order).sort(dim=1, stable=True)
        rows = rows.masked_fill(rows == len(self.index), -1).gather(1, order)
        return distances[:, : self.k], rows[:, : self.k]
