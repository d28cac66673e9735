"""Exact search on a GPU without waiting for it: a fast product finds candidates, float32 decides.

Let x' be a vector x, minus the center of the bank and scaled, rounded to float16. Half of |q - b|^2 is
|q|^2 / 2 + |b|^2 / 2 - qb, and by the triangle and Cauchy-Schwarz inequalities

    |qb - q'b'|  <=  |q - q'| |b'| + |q| |b - b'|

So the rank |b|^2 / 2 - q'b' of a row is wrong by a known amount at most. The rows with the lowest ranks get their exact
distances. If the k-th of them is below what the best of all other rows could have, these are the k nearest. A query for
which this does not hold is unresolved: it is told beside the results, and searched again in another way. This is rare.

Ranks are most of what is written and read: 7.5 GB for 32 images and 75,000 rows. So one product makes them, with
|b|^2 / 2 as further columns of the rows, and they are read once, for the minima of groups of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from patchserve_server.engine.search.bank_index import BankIndex
from patchserve_server.engine.search.block_minima import BlockMinima, padded
from patchserve_server.engine.search.near_places import NearPlaces

_SPARE = 7  # candidates beyond those needed; in real banks they prove that no other row is nearer
_SPARE_OF_MANY = 15  # of a large bank: its rows are nearer to each other
_MANY_ROWS = 8192
_GROUPED_COLUMNS = 512  # from so many rows on, minima of groups are faster than a selection from all
_SMALL_GROUP, _LARGE_GROUP = 8, 32  # so that there are about as many groups as columns in those that are looked at

_LONGEST_ROW = 64.0  # after scaling: its values are in the middle of what float16 can say
_SHORTEST_BANK = 1e-12  # squares of differences of shorter vectors are too small for float32
_HALF_SQUARED_PARTS = 3  # what a float16 leaves is the next one: 33 bits
_ALIGNED_COLUMNS = 8  # float16: 16 bytes, so that products run on matrix units
_RANKS_AT_ONCE = 2**28  # float32
_VALUES_REFINED = 2**27  # float32
_EPS = torch.finfo(torch.float32).eps
_MARGIN = 1 + 1e-4  # of distances in float32
_FEW_ROUNDINGS = 64 * _EPS  # of lengths, and of sums of a few squares


@dataclass(frozen=True, slots=True, eq=False)
class DeviceIndex:
    """A bank on a device, with a copy of its rows in float16."""

    index: BankIndex
    rounded: Tensor  # (P', W) float16: rows minus the center, scaled, negative; then half of their squared lengths
    offset: Tensor  # (D,) float32, the negative of the scaled center
    bound: RankBound

    @classmethod
    def build(cls, index: BankIndex) -> DeviceIndex:
        norms, (count, dim) = index.norms, index.patches.shape
        largest = norms.squared.max().sqrt()
        scale = (_LONGEST_ROW / largest.clamp(min=torch.finfo(torch.float32).tiny)).float()
        rounded = index.patches.new_zeros((_padded_rows(count), _width(dim)), dtype=torch.float16)
        rounded[count:, dim] = torch.inf  # a rank above all others
        rounded[:count, dim : dim + _HALF_SQUARED_PARTS] = _in_parts(norms.squared * (scale.double().square() / 2))
        longest, residual = scale.new_zeros(()), scale.new_zeros(())
        for start in range(0, count, _rows_at_once(dim)):
            block = slice(start, min(count, start + _rows_at_once(dim)))
            scaled = (index.patches[block] - norms.center) * scale
            rounded[block, :dim] = -scaled
            back = rounded[block, :dim].float()
            longest = torch.maximum(longest, torch.linalg.vector_norm(back, dim=1).max())
            residual = torch.maximum(residual, torch.linalg.vector_norm(scaled + back, dim=1).max())
        center = torch.linalg.vector_norm(norms.center) * scale
        bound = RankBound.of(scale, dim, longest, residual, center, is_too_short=largest < _SHORTEST_BANK)
        return cls(index, rounded, -norms.center * scale, bound)

    def counts(self, k: int) -> tuple[int, int]:
        """How many of the k nearest rows there are, and how many candidates it takes to find them."""
        rows = len(self.index)
        return min(k, rows), min(k + (_SPARE if rows < _MANY_ROWS else _SPARE_OF_MANY), rows)

    @property
    def nbytes(self) -> int:
        """Without the index."""
        return self.rounded.nbytes

    @staticmethod
    def predict_nbytes(rows: int, dim: int) -> int:
        """`nbytes` of the copy of (rows, dim)."""
        return 2 * _padded_rows(rows) * _width(dim)


@dataclass(frozen=True, slots=True, eq=False)
class RankBound:
    """How wrong ranks are at most: c + r l + a (r + s), for a query of length a that rounding changes by r.

    A tensor core cuts off what does not fit, so each addition of a sum may lose a unit in the last place, always in the
    same direction. What is lost when the center is subtracted in float32 counts as rounding, of rows and of queries.
    """

    numbers: Tensor  # (4,) float32, what follows; (Q, 4): for each query those of its bank
    scale: Tensor  # () or (Q,), of the vectors
    constant: Tensor  # c
    longest: Tensor  # l, of the rounded rows
    negative_slope: Tensor  # -s

    @classmethod
    def of(
        cls, scale: Tensor, dim: int, longest: Tensor, residual: Tensor, center: Tensor, *, is_too_short: Tensor
    ) -> RankBound:
        """`longest`: of the rounded rows; `residual`: the largest |b - b'|; `center`: the length of the scaled one."""
        longest, residual = longest * _MARGIN, residual * _MARGIN + _EPS * (center + _LONGEST_ROW)
        slope = residual * _MARGIN + _EPS * (center + longest + dim * longest)
        constant = _EPS * center * longest + _FEW_ROUNDINGS * _LONGEST_ROW**2
        constant = constant.masked_fill(is_too_short, torch.inf)
        numbers = torch.stack([scale, constant, longest * _MARGIN, -slope])
        return cls(numbers, *numbers.unbind())

    @classmethod
    def of_queries(cls, asked: Sequence[Asked]) -> RankBound:
        """Those of the banks, for each query."""
        if len(asked) == 1:
            return asked[0][1].bound
        numbers = torch.cat([bank.bound.numbers.expand(len(queries), -1) for queries, bank in asked])
        return cls(numbers, *numbers.unbind(dim=1))

    def has_wrong_squares(self, distances: Tensor) -> Tensor:
        """Whether float32 cannot say the squares of the differences in these distances (Q,): (Q,) bool."""
        is_right = (distances > _SHORTEST_BANK) | (self.constant < torch.inf)
        return (is_right & (distances < torch.inf)).logical_not_()

    def lowest_of_others(self, last_ranks: Tensor, lengths: Tensor, residuals: Tensor) -> Tensor:
        """Half of the squared distance (Q,) that rows above the last rank (Q,) have at least, without the constant."""
        per_length = torch.add(self.negative_slope, lengths, alpha=0.5 - 2 * _FEW_ROUNDINGS)
        per_length.sub_(residuals, alpha=_MARGIN)
        return torch.addcmul(last_ranks, lengths, per_length).addcmul_(residuals, self.longest, value=-1)


@dataclass(frozen=True, slots=True, eq=False)
class DeviceNeighbors:
    """The nearest rows of queries, and for which of them this is not certain."""

    distances: Tensor  # (Q, k) float32; infinity if there are fewer
    rows: Tensor  # (Q, k) int64; -1 if there are fewer
    is_unresolved: Tensor  # (Q,) bool

    @classmethod
    def join(cls, parts: Sequence[DeviceNeighbors]) -> DeviceNeighbors:
        if len(parts) == 1:
            return parts[0]
        return cls(
            torch.cat([part.distances for part in parts]),
            torch.cat([part.rows for part in parts]),
            torch.cat([part.is_unresolved for part in parts]),
        )


Asked = tuple[Tensor, DeviceIndex]
"""Queries (Q, D) float32, and the bank in which to search for them."""


def search_on_device(asked: Sequence[Asked], k: int, near: NearPlaces | None = None) -> DeviceNeighbors:
    """The k nearest rows of each query, as `nearest.nearest` finds them. Nothing waits for the device.

    Args:
        asked: of several banks, all with the same `counts`. What they do alike is launched once. The results are those
            of all queries in their order.
        k: how many rows.
        near: for one bank only. A query without a row in reach is unresolved.
    """
    if len(asked) > 1:
        if all(_parts(queries, bank) == 1 and bank.counts(k)[1] < len(bank.index) for queries, bank in asked):
            return _search(asked, k, None)
        return DeviceNeighbors.join([search_on_device([one], k) for one in asked])
    queries, bank = asked[0]
    size = max(1, -(-len(queries) // _parts(queries, bank)))
    starts = range(0, len(queries), size)
    parts = [(queries[start : start + size], _part(near, slice(start, start + size))) for start in starts]
    return DeviceNeighbors.join([_search([(some, bank)], k, places) for some, places in parts])


def _parts(queries: Tensor, bank: DeviceIndex) -> int:
    """In how many parts the ranks of all queries fit into memory."""
    return max(1, -(-len(queries) * len(bank.rounded) // _RANKS_AT_ONCE))


def _search_all(queries: Tensor, bank: DeviceIndex, k: int) -> DeviceNeighbors:
    """All rows are candidates, also of queries that are too far away for ranks in float16."""
    rows = torch.arange(len(bank.index), device=queries.device).expand(len(queries), -1)
    distances, nearest = _distances(queries, bank.index.patches, rows).sort(dim=1, stable=True)
    # There are no others, and only the squares may be too small or too large.
    return DeviceNeighbors(distances[:, :k], nearest[:, :k], bank.bound.has_wrong_squares(distances[:, k - 1]))


def _search(asked: Sequence[Asked], k: int, near: NearPlaces | None) -> DeviceNeighbors:
    first, bank = asked[0]
    k, count = bank.counts(k)
    if count == len(bank.index) and near is None:
        return _search_all(first, bank, k)
    stops, dim = list(accumulate((len(queries) for queries, _ in asked), initial=0)), first.shape[1]
    each = [(*one, slice(start, stop)) for one, (start, stop) in zip(asked, pairwise(stops), strict=True)]
    scaled = first.new_empty((stops[-1], dim))
    for queries, bank, part in each:
        torch.addcmul(bank.offset, queries, bank.bound.scale, out=scaled[part])
    rounded = scaled.new_empty((len(scaled), bank.rounded.shape[1]), dtype=torch.float16)
    rounded[:, :dim] = scaled
    rounded[:, dim:].fill_(1)
    lowest = [_lowest_ranks(rounded[part], bank, count, near) for _, bank, part in each]
    ranks, rows = (concatenated(tensors) for tensors in zip(*lowest, strict=True))
    if near is not None:
        rows = rows.masked_fill(ranks == torch.inf, len(bank.index))
    rows = rows.sort(dim=1).values  # equal distances by row
    present = rows if near is None else rows.clamp(max=len(bank.index) - 1)
    exact = concatenated([_distances(queries, bank.index.patches, present[part]) for queries, bank, part in each])
    if near is not None:
        exact.masked_fill_(rows == len(bank.index), torch.inf)
    exact, order = exact.sort(dim=1, stable=True)
    distances, nearest = exact[:, :k], present.gather(1, order[:, :k])
    if near is not None:
        nearest = nearest.masked_fill_(distances == torch.inf, -1)
    # All other rows are at least as far away as the last candidate may be; without others, that is infinitely far.
    bound = RankBound.of_queries(asked)
    residuals = torch.linalg.vector_norm(scaled - rounded[:, :dim], dim=1)
    lowest_of_others = bound.lowest_of_others(ranks[:, -1], torch.linalg.vector_norm(scaled, dim=1), residuals)
    last = distances[:, -1] * bound.scale
    squared = torch.addcmul(bound.constant, last, last, value=_MARGIN / 2)
    is_certain = squared <= lowest_of_others  # not if it is no number
    if near is not None:
        is_certain &= nearest[:, 0] >= 0
    return DeviceNeighbors(distances, nearest, is_certain.logical_not_())


def _lowest_ranks(rounded: Tensor, bank: DeviceIndex, count: int, near: NearPlaces | None) -> tuple[Tensor, Tensor]:
    """The lowest ranks (Q, count), ascending, and their rows; infinity where a row is out of reach."""
    index = bank.index
    ranks = multiply(rounded, bank.rounded)
    if near is not None and index.places is not None:
        ranks[:, : len(index)].masked_fill_(near.hides(index.places), torch.inf)
    if len(index) < _GROUPED_COLUMNS:
        lowest, rows = ranks.topk(count, dim=1, largest=False)
    else:
        lowest, rows = BlockMinima.of(ranks, _group_of(len(index))).lowest(count)
    # The rank of a query that is no number is none either, and then the padding may be among the lowest.
    return lowest, rows if len(bank.rounded) == len(index) else rows.clamp_(max=len(index) - 1)


def multiply(queries: Tensor, rows: Tensor) -> Tensor:
    """The product (Q, P) float32 of float16 (Q, W) and (P, W), with sums in float32."""
    if queries.device.type == "cpu":
        return queries.float() @ rows.float().T  # the same: products of float16 are exact in float32
    return torch.mm(queries, rows.T, out_dtype=torch.float32)


def _distances(queries: Tensor, patches: Tensor, rows: Tensor) -> Tensor:
    """Exact distances (Q, C) to the rows (Q, C): from differences, which are never written to memory."""
    size = max(1, _VALUES_REFINED // (rows.shape[1] * queries.shape[1]))
    parts = [
        torch.cdist(some[:, None], patches[found], compute_mode="donot_use_mm_for_euclid_dist")[:, 0]
        for some, found in zip(torch.split(queries, size), torch.split(rows, size), strict=True)
    ]
    return concatenated(parts)


def concatenated(parts: Sequence[Tensor]) -> Tensor:
    """The parts one after the other; a single one as it is."""
    return parts[0] if len(parts) == 1 else torch.cat(tuple(parts))


def _in_parts(values: Tensor) -> Tensor:
    """(P, 3) float16 whose sums are the values (P,) float64."""
    parts = list[Tensor]()
    for _ in range(_HALF_SQUARED_PARTS):
        parts.append(values.half())
        values = values - parts[-1]
    return torch.stack(parts, dim=1)


def _group_of(rows: int) -> int:
    return _SMALL_GROUP if rows < _MANY_ROWS else _LARGE_GROUP


def _padded_rows(rows: int) -> int:
    return padded(rows, _group_of(rows))


def _width(dim: int) -> int:
    return padded(dim + _HALF_SQUARED_PARTS, _ALIGNED_COLUMNS)


def _rows_at_once(dim: int) -> int:
    return max(1, _VALUES_REFINED // dim)


def _part(near: NearPlaces | None, queries: slice) -> NearPlaces | None:
    return None if near is None else near.for_queries(queries)
