"""Norms of a bank's rows around their mean. With them a matrix product ranks rows by distance."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_ROWS_PER_BLOCK = 1024  # limits the scratch memory


@dataclass(frozen=True, slots=True, eq=False)
class RowNorms:
    """A center, the squared distance of each row b from it, and the length of the longest row.

    Centering removes most of what the rows have in common, so that less precision is lost in

        |q - b|^2 = |q - c|^2 + |b - c|^2 - 2 (q - c)(b - c)
    """

    center: Tensor  # (D,) float32
    squared: Tensor  # (P,) float64, |b - center|^2
    largest: float  # |b| <= largest for every row

    def __post_init__(self) -> None:
        if self.center.ndim != 1 or self.squared.ndim != 1:
            shapes = tuple(self.center.shape), tuple(self.squared.shape)
            raise ValueError(f"The center must be (D,) and the squared norms (P,), not {shapes[0]} and {shapes[1]}.")
        if self.largest < 0:
            raise ValueError(f"The largest norm must be 0 or more, not {self.largest}.")

    @classmethod
    def build(cls, rows: Tensor) -> RowNorms:
        """Norms of rows (P, D) float32, around their mean. Makes no copy of the rows.

        Raises:
            ValueError: `rows` has another shape or no rows.
        """
        if rows.ndim != 2 or not len(rows):  # noqa: PLR2004
            raise ValueError(f"A bank must be (P, D) with at least 1 row, not {tuple(rows.shape)}.")
        center = rows.mean(dim=0)
        blocks = torch.split(rows, _ROWS_PER_BLOCK)
        # A difference in float32 would put rows that are near each other, and far from the center, in a wrong order.
        norms = [torch.linalg.vector_norm(block - center.double(), dim=1) for block in blocks]
        largest = max(float(torch.linalg.vector_norm(block, dim=1).max()) for block in blocks)
        return cls(center, torch.cat(norms).square(), largest)

    def subset(self, rows: Tensor) -> RowNorms:
        """Norms of the rows (K,) int64, with the same center."""
        return RowNorms(self.center, self.squared[rows], self.largest)

    @property
    def nbytes(self) -> int:
        return self.center.nbytes + self.squared.nbytes

    @staticmethod
    def predict_nbytes(rows: int, dim: int) -> int:
        """`nbytes` of the norms of (rows, dim)."""
        return 4 * dim + 8 * rows
