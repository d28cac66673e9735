"""Lower bounds of distances from one bfloat16 matrix product, for processors where it is faster than others.

Let x' be a vector x, minus a common center, rounded to bfloat16. By the triangle and Cauchy-Schwarz inequalities

    q b  <=  q'b' + |q - q'| |b'| + |q| |b - b'|

So half of |q - b|^2 = |q|^2 + |b|^2 - 2 qb has a lower bound in which every term is a product of a number of q and a
number of b. These numbers become 8 more columns of the vectors, so that one matrix product gives the bounds. They are
strict: a row whose bound is above a distance is farther away than that distance.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from patchserve_server.engine.search.bounds import QueryBounds

_EXTRA_COLUMNS = 8  # half of |q|^2 and of |b|^2 as 3 numbers each, and the two products of lengths
_ROWS_PER_BLOCK = 256
_ROUND_UP = 1 + 2.0**-7  # a number times this, rounded to bfloat16, is never below the number


@dataclass(frozen=True, slots=True, eq=False)
class Bfloat16Bounds:
    """A copy of a bank's rows in bfloat16, half as large as the bank."""

    columns: Tensor  # (P, D + 8) bfloat16
    center: Tensor  # (D,) float32

    def __post_init__(self) -> None:
        if self.columns.ndim != 2 or self.center.shape != (self.columns.shape[1] - _EXTRA_COLUMNS,):  # noqa: PLR2004
            shapes = tuple(self.columns.shape), tuple(self.center.shape)
            raise ValueError(f"The columns must be (P, D + 8) and the center (D,), not {shapes[0]} and {shapes[1]}.")

    @classmethod
    def build(cls, patches: Tensor, center: Tensor) -> Bfloat16Bounds:
        """Bounds of a bank (P, D) float32. They are valid for any center (D,) and tight for the mean."""
        columns = _empty_columns(patches)
        for block in _blocks(patches):
            rounded, norm, residual, half_squared = _rounded_with_norms(patches[block] - center)
            rounded_norm = norm * _ROUND_UP  # at least |b'|
            ones = torch.ones_like(half_squared)
            parts = (rounded, ones, half_squared, _round_up(rounded_norm), _round_up(residual))
            torch.cat(parts, dim=1, out=columns[block])
        return cls(columns, center)

    def subset(self, rows: Tensor) -> Bfloat16Bounds:
        """The bounds of a copy of the rows (K,) int64."""
        return Bfloat16Bounds(self.columns[rows], self.center)

    def of_queries(self, queries: Tensor) -> QueryBounds:
        """The bounds for queries (Q, D) float32."""
        columns = _empty_columns(queries)
        for block in _blocks(queries):
            rounded, norm, residual, half_squared = _rounded_with_norms(queries[block] - self.center)
            ones = torch.ones_like(half_squared)
            parts = (-rounded, half_squared, ones, -_round_up(residual), -_round_up(norm))
            torch.cat(parts, dim=1, out=columns[block])
        return _Bfloat16QueryBounds(self, columns)

    def __len__(self) -> int:
        return len(self.columns)

    @property
    def nbytes(self) -> int:
        """Without the center, which belongs to the bank's norms."""
        return self.columns.nbytes

    @staticmethod
    def predict_nbytes(rows: int, dim: int) -> int:
        """`nbytes` of the bounds of a bank (rows, dim)."""
        return 2 * rows * (dim + _EXTRA_COLUMNS)


@dataclass(frozen=True, slots=True, eq=False)
class _Bfloat16QueryBounds:
    """Bounds of half of |q - b|^2, for each query and row."""

    bounds: Bfloat16Bounds
    columns: Tensor  # (Q, D + 8) bfloat16

    def fill(self, rows: slice, out: Tensor) -> None:
        for start in range(rows.start, rows.stop, _ROWS_PER_BLOCK):
            block = slice(start, min(start + _ROWS_PER_BLOCK, rows.stop))
            part = out[:, block.start - rows.start : block.stop - rows.start]
            part.copy_(self.columns @ self.bounds.columns[block].T)

    def limits(self, distances: Tensor) -> Tensor:
        """Bounds are rounded to bfloat16, so this value is rounded too: rounding keeps the order of two numbers.

        The margin covers a distance that is slightly too short, and products that are too small for float32.
        """
        underflow = self.columns.shape[1] * torch.finfo(torch.float32).tiny
        return distances.square().mul(0.5 * (1 + 1e-4)).add(underflow).to(self.columns.dtype).float()


def _empty_columns(vectors: Tensor) -> Tensor:
    return vectors.new_empty((len(vectors), vectors.shape[1] + _EXTRA_COLUMNS), dtype=torch.bfloat16)


def _blocks(vectors: Tensor) -> list[slice]:
    return [slice(start, start + _ROWS_PER_BLOCK) for start in range(0, len(vectors), _ROWS_PER_BLOCK)]


def _rounded_with_norms(centered: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Vectors x (N, D) in bfloat16, and the norms that the bounds need.

    Returns:
        x' (N, D) bfloat16; |x| (N, 1); |x - x'| (N, 1); half of |x|^2 as a sum of three bfloat16 numbers (N, 3).
        The third is rounded up and the fourth down by the largest error of a float32 sum of D + 8 products.
    """
    sum_error = (centered.shape[1] + 2 * _EXTRA_COLUMNS) * torch.finfo(torch.float32).eps / 2
    rounded = centered.bfloat16()
    norm = torch.linalg.vector_norm(centered, dim=1, keepdim=True, dtype=torch.float64)
    residual = torch.linalg.vector_norm(centered - rounded, dim=1, keepdim=True) * (1 + sum_error) + sum_error * norm
    half_squared = norm.square() * (0.5 - sum_error)
    first = half_squared.bfloat16()
    second = (half_squared - first).bfloat16()
    third = (half_squared - first - second).bfloat16()
    return rounded, norm, residual, torch.cat((first, second, third), dim=1)


def _round_up(lengths: Tensor) -> Tensor:
    """Lengths in bfloat16, rounded up."""
    return (lengths * _ROUND_UP).bfloat16()
