"""The scratch memory of a search."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

DEFAULT_MEMORY_LIMIT_BYTES = 256 * 2**20

_QUERIES_PER_PASS = 1024
_REFINED_BYTES = 3 * 2**19  # of rows: they stay in the processor's cache
_LEAST_REFINED_ROWS = 64
_ALIGNED_ROWS = 64  # a product whose output rows fill whole cache lines is a tenth faster


@dataclass(frozen=True, slots=True)
class ScratchBudget:
    """How large a piece of work may be. It plans half of the limit; the rest is for torch itself.

    One row and one query are always allowed.
    """

    limit_bytes: int
    dim: int

    def query_slices(self, total: int) -> Iterator[slice]:
        """All queries, in passes of the same size: a short last pass would cost as much as a long one."""
        largest = max(1, min(_QUERIES_PER_PASS, self.limit_bytes // (64 * self.dim)))
        size = math.ceil(total / max(1, math.ceil(total / largest)))
        return (slice(start, min(start + size, total)) for start in range(0, total, size or 1))

    def rows_per_block(self, queries: int, dtype: torch.dtype) -> int:
        """How many rows of the bank are scored at once for this many queries."""
        converted_row = self.dim * dtype.itemsize if dtype is torch.float64 else 0
        largest = self.limit_bytes // 2 // (queries * (dtype.itemsize + 1) * 2 + converted_row)
        return largest // _ALIGNED_ROWS * _ALIGNED_ROWS or max(1, largest)

    def rows_per_refinement(self, *, is_cpu: bool) -> int:
        """How many exact distances are computed at once. On a GPU, few large pieces cost less than many small ones."""
        in_memory = max(1, self.limit_bytes // (16 * self.dim))
        return min(in_memory, max(_LEAST_REFINED_ROWS, _REFINED_BYTES // (4 * self.dim))) if is_cpu else in_memory
