"""Lower bounds of distances from one int8 matrix product, for processors with VNNI or AMX.

A vector x, minus a common center, is a scale s times x' + e: x' in int8, e the rounding error. With m = x' + e / 2,

    q b / (s t)  =  q' b'  +  m_q e_b  +  e_q m_b

The last two products are small, but Cauchy-Schwarz alone makes them so large that it rules out few rows of a real bank:
patch vectors have most of their length in few directions. So the part of m and of e along the bank's principal
directions goes into the product too, as further int8 columns; only the rest of both is estimated by lengths. 16
directions make the bounds of int8 about as tight as those of bfloat16.

The bounds are strict: a row whose bound is above a distance is farther away than that distance.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from patchserve_server.engine.search.bounds import QueryBounds

_DIRECTIONS = 16
_SAMPLED_ROWS = 256  # whose principal directions are those of the bank
_LARGEST = 127
_STEP = 8.0  # of m along a direction; of e it is 1 / 8, so that their product has no factor
_SHARE = 1 / 32  # balances the rounding of both along the directions
_ROWS_PER_BLOCK = 64  # (64, 1536) float32 stay in the processor's cache
_ROWS_PER_PRODUCT = 256


@dataclass(frozen=True, slots=True, eq=False)
class Int8Bounds:
    """A copy of a bank's rows in int8, a quarter as large as the bank."""

    columns: Tensor  # (P, D + 2 R) int8: x', m along the directions, e along the directions
    terms: Tensor  # (P, 4) float32: half of |b|^2, t, t |e|, t |m|
    center: Tensor  # (D,) float32
    directions: Tensor  # (D, R) float32, orthonormal

    def __post_init__(self) -> None:
        dim, count = self.directions.shape
        if self.columns.shape != (len(self.terms), dim + 2 * count) or self.center.shape != (dim,):
            shapes = tuple(self.columns.shape), tuple(self.center.shape)
            raise ValueError(f"The columns must be (P, D + 2 R) and the center (D,), not {shapes[0]} and {shapes[1]}.")

    @classmethod
    def build(cls, patches: Tensor, center: Tensor) -> Int8Bounds:
        """Bounds of a bank (P, D) float32. They are valid for any center (D,) and tight for the mean."""
        directions = _principal_directions(patches, center)
        columns = patches.new_empty((len(patches), patches.shape[1] + 2 * directions.shape[1]), dtype=torch.int8)
        terms = patches.new_empty((len(patches), 4))
        for block in _blocks(patches):
            rows = _Rounded.of(patches[block] - center, directions)
            # The columns of queries are (x', m, e): those of rows are in the order that multiplies m by e.
            torch.cat((rows.values, rows.along_error, rows.along_middle), dim=1, out=columns[block])
            of_rows = (rows.half_squared, rows.scale, rows.scale * rows.error, rows.scale * rows.middle)
            torch.stack(of_rows, dim=1, out=terms[block])
        return cls(columns, terms, center, directions)

    def subset(self, rows: Tensor) -> Int8Bounds:
        """The bounds of a copy of the rows (K,) int64."""
        return Int8Bounds(self.columns[rows], self.terms[rows], self.center, self.directions)

    def of_queries(self, queries: Tensor) -> QueryBounds:
        """The bounds for queries (Q, D) float32."""
        columns = self.columns.new_empty((len(queries), self.columns.shape[1]))
        factors, scale = queries.new_empty((len(queries), 4)), queries.new_empty(len(queries))
        for block in _blocks(queries):
            rounded = _Rounded.of(queries[block] - self.center, self.directions)
            torch.cat((rounded.values, rounded.along_middle, rounded.along_error), dim=1, out=columns[block])
            of_queries = (rounded.half_squared / rounded.scale, rounded.scale.reciprocal())
            torch.stack((*of_queries, -rounded.middle, -rounded.error), dim=1, out=factors[block])
            scale[block] = rounded.scale
        return _Int8QueryBounds(self, columns, factors, scale)

    def __len__(self) -> int:
        return len(self.columns)

    @property
    def nbytes(self) -> int:
        """Without the center, which belongs to the bank's norms."""
        return self.columns.nbytes + self.terms.nbytes + self.directions.nbytes

    @staticmethod
    def predict_nbytes(rows: int, dim: int) -> int:
        """`nbytes` of the bounds of a bank (rows, dim)."""
        count = min(_DIRECTIONS, dim)
        return rows * (dim + 2 * count + 16) + 4 * dim * count


@dataclass(frozen=True, slots=True, eq=False)
class _Int8QueryBounds:
    """Bounds of half of |q - b|^2 / s, for each query and row."""

    bounds: Int8Bounds
    columns: Tensor  # (Q, D + 2 R) int8
    factors: Tensor  # (Q, 4) float32, of the terms 1, half of |b|^2, t |e|, t |m|
    scale: Tensor  # (Q,)

    def fill(self, rows: slice, out: Tensor) -> None:
        width = min(_ROWS_PER_PRODUCT, out.shape[1])
        products = torch.empty((len(self.columns), width), dtype=torch.int32)
        for start in range(rows.start, rows.stop, width):
            block = slice(start, min(start + width, rows.stop))
            part, terms = out[:, block.start - rows.start : block.stop - rows.start], self.bounds.terms[block].T
            product = products[:, : part.shape[1]] if part.shape[1] == width else products.new_empty(part.shape)
            torch._int_mm(self.columns, self.bounds.columns[block].T, out=product)  # noqa: SLF001
            torch.mul(product, terms[1], out=part)
            part.addmm_(self.factors, torch.stack((torch.ones_like(terms[0]), terms[0], terms[2], terms[3])), beta=-1)

    def limits(self, distances: Tensor) -> Tensor:
        # The margin covers a distance that is slightly too short, and products that are too small for float32.
        underflow = self.columns.shape[1] * torch.finfo(torch.float32).tiny
        return distances.square().mul(0.5 * (1 + 1e-4)).add(underflow) / self.scale


@dataclass(frozen=True, slots=True, eq=False)
class _Rounded:
    """Vectors (N, D) in int8, and the lengths that their bounds need. All lengths are in units of the scale."""

    values: Tensor  # (N, D) int8
    along_middle: Tensor  # (N, R) int8
    along_error: Tensor  # (N, R) int8
    scale: Tensor  # (N,) float32
    half_squared: Tensor  # (N,) float32: half of |x|^2, rounded down; not in units of the scale
    middle: Tensor  # (N,) float32: how long m is, without what the columns have of it
    error: Tensor  # (N,) float32: how long e is, with what the columns lack of it

    @classmethod
    def of(cls, centered: Tensor, directions: Tensor) -> _Rounded:
        """Vectors (N, D) minus the center."""
        sum_error = (centered.shape[1] + 2 * _DIRECTIONS) * torch.finfo(torch.float32).eps  # of any sum of D products
        scale = centered.abs().amax(dim=1, keepdim=True) / _LARGEST
        scale = torch.where(scale == 0, 1.0, scale.clamp(min=1e-30))
        exact = centered / scale
        values = exact.round()
        error = exact - values
        middle = exact - error / 2
        squared = torch.linalg.vector_norm(exact, dim=1).square()
        along_middle, along_error = middle @ directions, error @ directions
        rounded_middle = (along_middle / _STEP).round().clamp(-_LARGEST, _LARGEST)
        rounded_error = (along_error * _STEP).round().clamp(-_LARGEST, _LARGEST)
        across = torch.linalg.vector_norm(middle, dim=1).square() - along_middle.square().sum(dim=1)
        middle_length = (
            across.clamp(min=0)
            + (along_middle - rounded_middle * _STEP).square().sum(dim=1)
            + (rounded_middle * _STEP * _SHARE).square().sum(dim=1)
            + 4 * sum_error * squared
        ).sqrt()
        error_length = (
            torch.linalg.vector_norm(error, dim=1).square()
            + ((along_error - rounded_error / _STEP) / _SHARE).square().sum(dim=1)
            + sum_error**2 * squared
        ).sqrt() * (1 + sum_error)
        scale = scale[:, 0]
        half_squared = scale.square() * squared * (0.5 - sum_error)
        values, rounded_middle, rounded_error = (
            part.to(torch.int8) for part in (values, rounded_middle, rounded_error)
        )
        return cls(values, rounded_middle, rounded_error, scale, half_squared, middle_length, error_length)


def _blocks(vectors: Tensor) -> Iterator[slice]:
    return (slice(start, start + _ROWS_PER_BLOCK) for start in range(0, len(vectors), _ROWS_PER_BLOCK))


def _principal_directions(patches: Tensor, center: Tensor) -> Tensor:
    """(D, R) float32, orthonormal: along them, a sample of the rows (P, D) is longest."""
    sample = (patches[:: -(-len(patches) // _SAMPLED_ROWS)] - center).double()
    count = min(_DIRECTIONS, patches.shape[1])
    vectors = torch.linalg.eigh(sample @ sample.T).eigenvectors[:, -count:]
    spanning = sample.new_zeros((patches.shape[1], count))
    spanning[:, : vectors.shape[1]] = sample.T @ vectors
    lengths = torch.linalg.vector_norm(spanning, dim=0)
    orthonormal: Tensor = torch.linalg.qr(spanning / torch.where(lengths > 0, lengths, 1.0)).Q
    return orthonormal.float()
