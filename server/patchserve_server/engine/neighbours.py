"""Exact Euclidean nearest neighbours in a memory bank.

One matrix product per block finds the candidates, differences taken one by one give their distances. So a distance
near zero is as exact as a large one, and no distance depends on how the work was cut into blocks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

DEFAULT_MEMORY_LIMIT_BYTES = 256 * 2**20

_SPARE_CANDIDATES = 2
_QUERIES_PER_BLOCK = 1024
_REFINED_AT_ONCE = 64  # (64, 11, 1536) float32 are 4 MiB: they stay in the processor's cache
_ROWS_PER_NORM = 4096
_ALIGNED_ROWS = 64  # a product into rows of a whole number of cache lines is a tenth faster


@dataclass(frozen=True, slots=True, eq=False)
class BankIndex:
    """A memory bank that is ready to be searched, on the device of its patches.

    `groups` says which picture a row came from, `places` where in it: only a search that hides rows needs them.
    """

    patches: Tensor  # (P, D) float32
    groups: Tensor | None = None  # (P,) integer
    places: Tensor | None = None  # (P,) integer, 0..G-1
    spacing: Tensor | None = None  # (P,) float32, above 0: for scores, not for the search
    centre: Tensor = field(init=False)  # (D,) float32
    squared_norms: Tensor = field(init=False)  # (P,) float64, of the rows less the centre
    largest_norm: float = field(init=False)  # of the rows themselves

    def __post_init__(self) -> None:
        if self.patches.ndim != 2 or not len(self.patches):  # noqa: PLR2004
            raise ValueError(f"A bank is (P, D) with P above 0, not {tuple(self.patches.shape)}.")
        for each in (self.groups, self.places, self.spacing):
            if each is not None and each.shape != self.patches.shape[:1]:
                raise ValueError(f"{len(self.patches)} rows need as many values each, not {tuple(each.shape)}.")
        centre = self.patches.mean(dim=0)
        blocks = torch.split(self.patches, _ROWS_PER_NORM)
        norms = [torch.linalg.vector_norm(block - centre, dim=1, dtype=torch.float64) for block in blocks]
        largest = max(float(torch.linalg.vector_norm(block, dim=1).max()) for block in blocks)
        object.__setattr__(self, "centre", centre)
        object.__setattr__(self, "squared_norms", torch.cat(norms).square())
        object.__setattr__(self, "largest_norm", largest)

    def __len__(self) -> int:
        return len(self.patches)


def nearest(
    queries: Tensor,
    index: BankIndex,
    k: int,
    *,
    memory_limit_bytes: int = DEFAULT_MEMORY_LIMIT_BYTES,
    exclude_groups: Tensor | None = None,
    visible_places: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The k rows of the bank that are nearest to each query, nearest first; the lower row first among equals.

    Args:
        queries: (Q, D) float32.
        index: the bank, P rows.
        k: at least 1. A bank of fewer rows gives P columns instead of k.
        memory_limit_bytes: bound on scratch memory beside the results; one row and one query always go through.
        exclude_groups: (Q,) integer; query i sees no row of group exclude_groups[i].
        visible_places: (Q, G) bool; query i sees a row at place g only where [i, g] is true.
            Where either leaves too few rows, the last columns are infinity and row -1.

    Returns:
        Distances (Q, k) float32 and rows (Q, k) int64.
    """
    width = min(k, len(index))
    if width < 1:
        raise ValueError(f"k is at least 1, not {k}.")
    hidden = _Hidden(index, exclude_groups, visible_places)
    distances = queries.new_empty((len(queries), width))
    rows = torch.empty((len(queries), width), dtype=torch.int64, device=queries.device)
    scratch = _Scratch(memory_limit_bytes, queries.shape[1])
    for part in scratch.query_slices(len(queries)):
        found = _candidates(queries[part], index, width, scratch, hidden.of(part))
        distances[part], rows[part] = _refined(queries[part], index, found, width, scratch)
    return distances, rows


@dataclass(frozen=True, slots=True, eq=False)
class _Hidden:
    """Which rows each query must not see."""

    index: BankIndex
    exclude_groups: Tensor | None  # (Q,)
    visible_places: Tensor | None  # (Q, G)

    def __post_init__(self) -> None:
        if self.exclude_groups is not None and self.index.groups is None:
            raise ValueError("This bank does not know the groups of its rows, so none can be excluded.")
        if self.visible_places is not None and self.index.places is None:
            raise ValueError("This bank does not know the places of its rows, so none can be told from others.")

    def of(self, queries: slice | Tensor) -> _Hidden:
        """The same for some of the queries."""
        groups = None if self.exclude_groups is None else self.exclude_groups[queries]
        places = None if self.visible_places is None else self.visible_places[queries]
        return _Hidden(self.index, groups, places)

    def fill(self, ranks: Tensor, rows: slice) -> None:
        """Sets the ranks (Q, P) of hidden rows to infinity, in place."""
        if self.exclude_groups is not None and self.index.groups is not None:
            ranks.masked_fill_(self.exclude_groups[:, None] == self.index.groups[rows], torch.inf)
        if self.visible_places is not None and self.index.places is not None:
            ranks.masked_fill_(self.visible_places[:, self.index.places[rows]].logical_not_(), torch.inf)


@dataclass(frozen=True, slots=True)
class _Scratch:
    """How large a piece of work may be. Half of the bound is planned for; the rest covers what torch itself takes."""

    limit_bytes: int
    dim: int

    def query_slices(self, total: int) -> Iterator[slice]:
        most = max(1, min(_QUERIES_PER_BLOCK, self.limit_bytes // (64 * self.dim)))
        size = math.ceil(total / max(1, math.ceil(total / most)))  # even parts: a short last one wastes a whole pass
        return (slice(start, min(start + size, total)) for start in range(0, total, size or 1))

    def rows_per_block(self, queries: int, dtype: torch.dtype) -> int:
        converted = 0 if dtype is torch.float32 else self.dim * dtype.itemsize
        most = self.limit_bytes // 2 // (queries * (dtype.itemsize + 1) * 2 + converted)
        return most // _ALIGNED_ROWS * _ALIGNED_ROWS or max(1, most)

    def refined_at_once(self, candidates: int) -> int:
        return max(1, min(_REFINED_AT_ONCE, self.limit_bytes // (16 * self.dim * candidates)))


def _candidates(queries: Tensor, index: BankIndex, k: int, scratch: _Scratch, hidden: _Hidden) -> Tensor:
    """Rows (Q, k or a few more) among which the k nearest surely are; P where the bank has no more to offer."""
    count = min(k + _SPARE_CANDIDATES, len(index))
    ranks, rows = _ranked(queries, index, count, dtype=torch.float32, scratch=scratch, hidden=hidden)
    if count < len(index):
        # A row outside has at least the last rank, less the rounding error; inside, k rows have at most rank k plus it.
        unsure = ranks[:, -1] - ranks[:, k - 1] < 2 * _rounding_error(queries, index)
        if bool(unsure.any()):
            rows[unsure] = _ranked(
                queries[unsure], index, count, dtype=torch.float64, scratch=scratch, hidden=hidden.of(unsure)
            )[1]
    return rows


def _rounding_error(queries: Tensor, index: BankIndex) -> Tensor:
    """(Q,) bound on the error of a float32 rank: errors of D products add up like a random walk."""
    unit = torch.finfo(torch.float32).eps
    norms: Tensor = torch.linalg.vector_norm(queries - index.centre, dim=1)
    products = norms.mul(2 * math.sqrt(queries.shape[1]) * index.largest_norm)
    return products.add(index.squared_norms.max()).mul(unit)


def _ranked(
    queries: Tensor,
    index: BankIndex,
    count: int,
    *,
    dtype: torch.dtype,
    scratch: _Scratch,
    hidden: _Hidden,
) -> tuple[Tensor, Tensor]:
    """The lowest ranks (Q, count), ascending, and their rows.

    With c the centre, |q - b|^2 = |q - c|^2 + 2 (q - c)c + (|b - c|^2 - 2 (q - c)b). The last bracket is the rank: it
    orders the rows as distance does. Only the queries are centred, which costs no copy of the bank, and yet most of
    what the vectors have in common does not enter the cancelling terms.
    """
    centred = queries.to(dtype) - index.centre
    step = scratch.rows_per_block(len(queries), dtype)
    ranks = centred.new_empty((len(queries), 0))
    rows = torch.empty((len(queries), 0), dtype=torch.int64, device=queries.device)
    for start in range(0, len(index), step):
        stop = min(start + step, len(index))
        block = index.patches[start:stop].to(dtype)
        scores = torch.addmm(index.squared_norms[start:stop].to(dtype), centred, block.T, alpha=-2)
        hidden.fill(scores, slice(start, stop))
        best, at = scores.topk(min(count, stop - start), dim=1, largest=False)
        at = torch.where(best.isinf(), len(index), at + start)
        ranks, rows = torch.cat((ranks, best), dim=1), torch.cat((rows, at), dim=1)
        ranks, order = ranks.topk(min(count, ranks.shape[1]), dim=1, largest=False)
        rows = rows.gather(1, order)
    return ranks, rows


def _refined(queries: Tensor, index: BankIndex, rows: Tensor, k: int, scratch: _Scratch) -> tuple[Tensor, Tensor]:
    """Distances (Q, k) by direct differences, and their rows."""
    rows = rows.sort(dim=1).values  # so that the stable sort below puts the lower row first
    missing = rows == len(index)
    distances = torch.empty(rows.shape, dtype=queries.dtype, device=queries.device)
    size = scratch.refined_at_once(rows.shape[1])
    for start in range(0, len(queries), size):
        part = slice(start, start + size)
        differences = index.patches[rows[part].clamp(max=len(index) - 1)]  # (q, candidates, D)
        differences -= queries[part, None]
        torch.linalg.vector_norm(differences, dim=2, out=distances[part])
    distances.masked_fill_(missing, torch.inf)
    distances, order = distances.sort(dim=1, stable=True)
    rows = rows.masked_fill(missing, -1).gather(1, order)
    return distances[:, :k], rows[:, :k]
