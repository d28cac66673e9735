"""Exact search on a GPU without waiting for it: a fast product finds candidates, float32 decides.

Let x' be a vector x, minus the center of the bank and scaled, rounded to float16. Half of |q - b|^2 is
|q|^2 / 2 + |b|^2 / 2 - qb, and by the triangle and Cauchy-Schwarz inequalities

    |qb - q'b'|  <=  |q - q'| |b'| + |q| |b - b'|

So the rank |b|^2 / 2 - q'b' of a row is wrong by a known amount at most. The rows with the lowest ranks get their exact
distances. If the k-th of them is below what the best of all other rows could have, these are the k nearest. A query for
which this does not hold is unresolved: it is told beside the results, and searched again in another way. This is rare.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from patchserve_server.engine.search.bank_index import BankIndex
from patchserve_server.engine.search.block_minima import BlockMinima, padded
from patchserve_server.engine.search.near_places import NearPlaces

SPARE_CANDIDATES = 7

_LONGEST_ROW = 64.0  # after scaling: its values are in the middle of what float16 can say
_LARGEST_VALUE = 60_000.0  # of float16, nearly
_RANKS_AT_ONCE = 2**26  # float32
_VALUES_REFINED = 2**26  # float32
_GROUPED_COLUMNS = 4096  # from so many rows on, minima of groups are faster than a selection from all
_MARGIN = 1 + 1e-4  # of distances in float32


@dataclass(frozen=True, slots=True, eq=False)
class DeviceIndex:
    """A bank on a device, with a copy of its rows in float16."""

    index: BankIndex
    rounded: Tensor  # (P, D) float16, rows minus the center, scaled
    half_squared: Tensor  # (P,) float32, half of the squared lengths of the scaled rows
    longest: Tensor  # () float32, of the rounded rows
    residual: Tensor  # () float32, the largest |b - b'|
    center: Tensor  # () float32, the length of the scaled center
    scale: Tensor  # () float32

    @classmethod
    def build(cls, index: BankIndex) -> DeviceIndex:
        norms = index.norms
        largest = norms.squared.max().sqrt().clamp(min=torch.finfo(torch.float32).tiny)
        scale = (_LONGEST_ROW / largest).float()
        rounded = torch.empty_like(index.patches, dtype=torch.float16)
        longest, residual = scale.new_zeros(()), scale.new_zeros(())
        for start in range(0, len(index), _rows_at_once(index.patches.shape[1])):
            block = slice(start, start + _rows_at_once(index.patches.shape[1]))
            scaled = (index.patches[block] - norms.center) * scale
            rounded[block] = scaled.half()
            back = rounded[block].float()
            longest = torch.maximum(longest, torch.linalg.vector_norm(back, dim=1).max())
            residual = torch.maximum(residual, torch.linalg.vector_norm(scaled - back, dim=1).max())
        center = torch.linalg.vector_norm(norms.center) * scale
        half_squared = (norms.squared * (scale.double().square() / 2)).float()
        # A row is also wrong by what it loses when the center is subtracted in float32.
        residual = residual * _MARGIN + torch.finfo(torch.float32).eps * (center + _LONGEST_ROW)
        return cls(index, rounded, half_squared, longest * _MARGIN, residual, center, scale)

    @property
    def nbytes(self) -> int:
        """Without the index."""
        return self.rounded.nbytes + self.half_squared.nbytes

    @staticmethod
    def predict_nbytes(rows: int, dim: int) -> int:
        """`nbytes` of the copy of (rows, dim)."""
        return rows * (2 * dim + 4)


@dataclass(frozen=True, slots=True, eq=False)
class DeviceNeighbors:
    """The nearest rows of queries, and for which of them this is not certain."""

    distances: Tensor  # (Q, k) float32; infinity if there are fewer
    rows: Tensor  # (Q, k) int64; -1 if there are fewer
    is_unresolved: Tensor  # (Q,) bool


def search_on_device(queries: Tensor, bank: DeviceIndex, k: int, near: NearPlaces | None = None) -> DeviceNeighbors:
    """The k nearest rows of each query (Q, D) float32, as `nearest.nearest` finds them. Nothing waits for the device.

    With `near`, a query without a row in reach is unresolved.
    """
    k, dim = min(k, len(bank.index)), queries.shape[1]
    count = min(k + SPARE_CANDIDATES, len(bank.index))
    size = max(1, min(_RANKS_AT_ONCE // padded(len(bank.index)), _VALUES_REFINED // (count * dim)))
    parts = [
        _search(queries[start : start + size], bank, k, count, _part(near, slice(start, start + size)))
        for start in range(0, len(queries), size)
    ]
    if len(parts) == 1:
        return parts[0]
    return DeviceNeighbors(
        torch.cat([part.distances for part in parts]),
        torch.cat([part.rows for part in parts]),
        torch.cat([part.is_unresolved for part in parts]),
    )


def _search(queries: Tensor, bank: DeviceIndex, k: int, count: int, near: NearPlaces | None) -> DeviceNeighbors:
    index = bank.index
    scaled = (queries - index.norms.center) * bank.scale
    rounded = scaled.clamp(-_LARGEST_VALUE, _LARGEST_VALUE).half()
    ranks, rows = _lowest_ranks(rounded, bank, count, near)
    is_missing = ranks.isinf()
    differences = index.patches[rows] - queries[:, None]  # (Q, C, D)
    exact = torch.linalg.vector_norm(differences, dim=2).masked_fill_(is_missing, torch.inf)
    rows = rows.masked_fill(is_missing, len(index))
    distances, nearest = _in_order(exact, rows, k)
    is_unresolved = torch.zeros(len(queries), dtype=torch.bool, device=queries.device)
    if count < len(index):
        # All other rows are at least as far away as the last candidate may be.
        last = ranks[:, -1].double() + _half_squared(scaled) - _rank_error(scaled, rounded, bank)
        limit = distances[:, -1].double().mul(bank.scale.double()).square() * (_MARGIN / 2)
        is_unresolved |= ((limit < last) | ranks[:, -1].isinf()).logical_not_()  # also if a value is not a number
    if near is not None:
        is_unresolved |= distances[:, 0].isinf()
    return DeviceNeighbors(distances, nearest.masked_fill(nearest == len(index), -1), is_unresolved)


def _lowest_ranks(rounded: Tensor, bank: DeviceIndex, count: int, near: NearPlaces | None) -> tuple[Tensor, Tensor]:
    """The lowest ranks (Q, count), ascending, and their rows; infinity where a row is out of reach."""
    index, queries = bank.index, len(rounded)
    columns = padded(len(index)) if len(index) >= _GROUPED_COLUMNS else len(index)
    ranks = torch.full((queries, columns), torch.inf, device=rounded.device)
    own = ranks[:, : len(index)]
    torch.sub(bank.half_squared, multiply(rounded, bank.rounded), out=own)
    if near is not None and index.places is not None:
        own.masked_fill_(near.hides(index.places), torch.inf)
    if columns == len(index) and len(index) < _GROUPED_COLUMNS:
        lowest = ranks.topk(count, dim=1, largest=False)
        return lowest.values, lowest.indices
    values, found = BlockMinima.of(ranks).lowest(count)
    return values, found.clamp(max=len(index) - 1)


def multiply(queries: Tensor, rows: Tensor) -> Tensor:
    """The product (Q, P) float32 of float16 (Q, D) and (P, D), with sums in float32."""
    if queries.device.type == "cuda":
        return torch.mm(queries, rows.T, out_dtype=torch.float32)
    return queries.float() @ rows.float().T  # the same: products of float16 are exact in float32


def _in_order(distances: Tensor, rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k nearest, equal distances by row."""
    rows, order = rows.sort(dim=1)
    distances, order = distances.gather(1, order).sort(dim=1, stable=True)
    return distances[:, :k], rows.gather(1, order)[:, :k]


def _rank_error(scaled: Tensor, rounded: Tensor, bank: DeviceIndex) -> Tensor:
    """(Q,) float64: how wrong a rank, and half of a query's squared length, are at most."""
    residual = torch.linalg.vector_norm(scaled - rounded, dim=1).double()
    length = torch.linalg.vector_norm(scaled, dim=1).double()
    residual = residual + torch.finfo(torch.float32).eps * (bank.center + length)  # as for the rows
    sums = _sum_error(scaled.shape[1]) * (length + _LONGEST_ROW).square()
    error: Tensor = (residual * (bank.longest + length) + length * bank.residual) * _MARGIN + sums
    return error


def _half_squared(vectors: Tensor) -> Tensor:
    """(Q,) float64."""
    lengths: Tensor = torch.linalg.vector_norm(vectors, dim=1, dtype=torch.float64)
    return lengths.square() / 2


def _sum_error(dim: int) -> float:
    """The share by which a sum of products in float32 may be wrong: their errors add up like a random walk."""
    return 2 * math.sqrt(dim) * torch.finfo(torch.float32).eps


def _rows_at_once(dim: int) -> int:
    return max(1, _VALUES_REFINED // dim)


def _part(near: NearPlaces | None, queries: slice) -> NearPlaces | None:
    return None if near is None else near.for_queries(queries)
