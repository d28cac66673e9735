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
from patchserve_server.engine.search.block_minima import BlockMinima, padded
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

    def candidates(
        self, score_block: Callable[[slice, Tensor], None], queries: Tensor, count: int
    ) -> tuple[Tensor, Tensor]:
        """The lowest scores (Q, count), ascending, and their rows; infinity and row P if there are fewer.

        Args:
            score_block: writes the scores (Q, len(rows)) for a slice of the bank's rows to its second argument.
            queries: (Q, ...) in the precision of the scores.
            count: how many candidates for each query.
        """
        total = len(self.index)
        step = self.scratch.rows_per_block(len(queries), queries.dtype)
        buffer = queries.new_empty(len(queries) * padded(min(step, total)))  # reused
        best, rows = torch.empty(0), torch.empty(0)  # the first block replaces them; a bank is never empty
        for start in range(0, total, step):
            block = slice(start, min(start + step, total))
            size = block.stop - start
            scores = buffer[: len(queries) * padded(size)].view(len(queries), -1)
            score_block(block, scores[:, :size])
            scores[:, size:] = torch.inf
            self.exclusion.apply(scores[:, :size], block)
            lowest, columns = BlockMinima.of(scores).lowest(min(count, size))
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
        size = max(1, self._refined_rows // rows.shape[1])
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

    def pair_distances(self, queries: Tensor, positions: Tensor, rows: Tensor) -> Tensor:
        """Exact distances (N,) between queries[positions] and the rows (N,) int64."""
        distances = queries.new_empty(len(rows))
        order = rows.argsort()  # similar queries have the same nearest rows, which then stay in the processor's cache
        for pairs in torch.split(order, self._refined_rows):
            distances[pairs] = self.distances(queries[positions[pairs]], rows[pairs, None])[:, 0]
        return distances

    @property
    def _refined_rows(self) -> int:
        return self.scratch.rows_per_refinement(is_cpu=self.index.patches.device.type == "cpu")

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
        query, column = unknown.nonzero(as_tuple=True)
        column += known_count
        distances[query, column] = self.pair_distances(queries, query, rows[query, column])
        return distances

    def k_nearest(self, distances: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The k nearest (Q, k) of rows (Q, C), equal distances by row; row -1 if there are fewer."""
        distances, rows = self.merge(distances, rows)
        return distances, rows.masked_fill(rows == len(self.index), -1)

    def merge(self, distances: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The same, with row P if there are fewer."""
        rows, order = rows.sort(dim=1)
        distances, order = distances.gather(1, order).sort(dim=1, stable=True)
        return distances[:, : self.k], rows.gather(1, order)[:, : self.k]
