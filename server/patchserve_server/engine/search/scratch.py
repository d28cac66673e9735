"""How much scratch memory a search takes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

DEFAULT_MEMORY_LIMIT_BYTES = 256 * 2**20

_QUERIES_PER_PASS = 1024
_ROWS_PER_REFINEMENT = 512  # (512, 1536) float32 are 3 MiB: they stay in the processor's cache
_ALIGNED_ROWS = 64  # a product whose output rows are whole cache lines is a tenth faster


@dataclass(frozen=True, slots=True)
class ScratchBudget:
    """How large a piece of work may be. Half of the limit is planned for; torch's own scratch takes the rest.

    One row and one query are always allowed.
    """

    limit_bytes: int
    dim: int

    def query_slices(self, total: int) -> Iterator[slice]:
        """All queries, in passes of the same size: a short last pass would cost as much as a long one."""
        most = max(1, min(_QUERIES_PER_PASS, self.limit_bytes // (64 * self.dim)))
        size = math.ceil(total / max(1, math.ceil(total / most)))
        return (slice(start, min(start + size, total)) for start in range(0, total, size or 1))

    def rows_per_block(self, queries: int, dtype: torch.dtype) -> int:
        """How many rows of the bank are scored at once for so many queries."""
        converted_row = self.dim * dtype.itemsize if dtype is torch.float64 else 0
        most = self.limit_bytes // 2 // (queries * (dtype.itemsize + 1) * 2 + converted_row)
        return most // _ALIGNED_ROWS * _ALIGNED_ROWS or max(1, most)

    def rows_per_refinement(self) -> int:
        """How many exact distances are computed at once."""
        return max(1, min(_ROWS_PER_REFINEMENT, self.limit_bytes // (16 * self.dim)))
