"""A search radius: queries that find only the rows whose places in the patch grid are near to their own.

No mask of all queries and rows is ever made. It would grow with the square of the grid: 2.4 GB for 49,152 patches.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

_LEAST_BLOCK_SIDE = 8  # a search for fewer than 64 queries costs mostly what it takes to copy the rows for it


@dataclass(frozen=True, slots=True, eq=False)
class NearPlaces:
    """The places of queries, and how far from them the places of rows may be.

    A place is a position in the patch grid, counted row by row.
    """

    places: Tensor  # (Q,) integer
    grid: tuple[int, int]  # (rows, columns)
    reach: tuple[int, int]  # in rows and in columns of the grid

    @classmethod
    def within(cls, radius: float, grid: tuple[int, int], places: Tensor) -> NearPlaces:
        """The radius is a fraction of the grid's sides. A place and its direct neighbors are always near each other."""
        rows, columns = (int(np.float32(max(1.0, radius * side))) for side in grid)
        return cls(places, grid, (rows, columns))

    def for_queries(self, queries: slice | Tensor) -> NearPlaces:
        """The same for a part of the queries."""
        return replace(self, places=self.places[queries])

    def hides(self, places: Tensor) -> Tensor:
        """Which rows, at these places (K,), each query must not find: (Q, K) bool."""
        rows, columns = self._coordinates(places)
        own_rows, own_columns = self._coordinates(self.places)
        hidden = _far(own_rows, self.grid[0], self.reach[0])[:, rows]
        return hidden.logical_or_(_far(own_columns, self.grid[1], self.reach[1])[:, columns])

    def rows_in_reach(self, places: Tensor) -> Tensor:
        """The rows, at these places (P,), that some query may find, and a few more: (K,) int64, ascending."""
        own_rows, own_columns = self._coordinates(self.places)
        first_row, last_row = int(own_rows.min()) - self.reach[0], int(own_rows.max()) + self.reach[0]
        columns = self.grid[1]
        rows = ((places >= first_row * columns) & (places < (last_row + 1) * columns)).nonzero()[:, 0]
        row_columns = places[rows] % columns
        is_near = (row_columns >= own_columns.min() - self.reach[1]) & (
            row_columns <= own_columns.max() + self.reach[1]
        )
        return rows[is_near]

    def blocks(self) -> list[Tensor] | None:
        """The queries (int64) in blocks of neighboring places; None: a block would reach half of the grid or more."""
        sides = [max(_LEAST_BLOCK_SIDE, reach) for reach in self.reach]
        reached = [
            min(whole, side + 2 * reach) for whole, side, reach in zip(self.grid, sides, self.reach, strict=True)
        ]
        if 2 * reached[0] * reached[1] >= self.grid[0] * self.grid[1]:
            return None
        rows, columns = self._coordinates(self.places)
        blocks_in_row = -(-self.grid[1] // sides[1])
        numbers = rows // sides[0] * blocks_in_row + columns // sides[1]
        order = numbers.argsort(stable=True)
        counts = numbers.bincount()
        return list(torch.split(order, counts[counts > 0].tolist()))

    def _coordinates(self, places: Tensor) -> tuple[Tensor, Tensor]:
        return places // self.grid[1], places % self.grid[1]


def _far(own: Tensor, side: int, reach: int) -> Tensor:
    """Which coordinates 0..side-1 are out of reach of one's own (Q,): (Q, side) bool."""
    return (own.int()[:, None] - torch.arange(side, dtype=torch.int32, device=own.device)).abs_() > reach
