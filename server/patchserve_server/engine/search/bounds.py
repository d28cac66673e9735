"""Lower bounds of distances: what an exact search needs of them."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class QueryBounds(Protocol):
    """The bounds of the distances between queries and the rows of a bank, in a unit of each query's own."""

    def fill(self, rows: slice, out: Tensor) -> None:
        """The bounds (Q, len(rows)) float32, written to `out`."""

    def limits(self, distances: Tensor) -> Tensor:
        """(Q,) float32: a row with a bound above it is farther away than the distance (Q,)."""


class RowBounds(Protocol):
    """What is kept of a bank's rows for bounds."""

    def __len__(self) -> int: ...

    def of_queries(self, queries: Tensor) -> QueryBounds:
        """The bounds for queries (Q, D) float32."""

    def subset(self, rows: Tensor) -> RowBounds:
        """The bounds of a copy of the rows (K,) int64."""

    @property
    def nbytes(self) -> int:
        """Without the center, which belongs to the bank's norms."""
