"""Exact Euclidean nearest neighbors in a memory bank.

One matrix product per block finds the candidates, differences taken one by one give their distances. So a distance
near zero is as exact as a large one, and no distance depends on how the work was cut into blocks.

The product is taken in bfloat16 where the processor is faster at that (see `sketch`), for all queries that it tells
apart well enough; else in float32, and where that is too coarse, in float64.

Where the index has inverted lists, rows outside of the lists that a query looks into are not found, and all else holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from patchserve_server.engine.search import bfloat16_bounds
from patchserve_server.engine.search.bfloat16_bounds import Bfloat16Bounds
from patchserve_server.engine.search.ivf_index import PROBES, IvfIndex

DEFAULT_MEMORY_LIMIT_BYTES = 256 * 2**20

_SPARE_CANDIDATES = 2
_MOST_OPEN = 0.25  # the share of queries beyond which the sketch costs more than it saves
_LEAST_QUERIES = 64  # for fewer, and for a smaller bank, the sketch is not worth its own work
_LEAST_ROWS = 2000
_TRIED_SHARE = 8  # a search that begins with a sketch tries it on every 8th query
_QUERIES_PER_BLOCK = 1024
_REFINED_AT_ONCE = 512  # (512, 1536) float32 are 3 MiB: they stay in the processor's cache
_ROWS_PER_NORM = 4096
_ALIGNED_ROWS = 64  # a product into rows of a whole number of cache lines is a tenth faster


@dataclass(frozen=True, slots=True, eq=False)
class BankIndex:
    """A memory bank that is ready to be searched, on the device of its patches.

    `groups` says which image a row came from, `places` where in it: only a search that hides rows needs them.
    """

    patches: Tensor  # (P, D) float32
    groups: Tensor | None = None  # (P,) integer
    places: Tensor | None = None  # (P,) integer, 0..G-1
    spacing: Tensor | None = None  # (P,) float32, above 0: for scores, not for the search
    lists: IvfIndex | None = None  # of the same patches
    centroids: BankIndex | None = field(init=False)  # of the lists
    center: Tensor = field(init=False)  # (D,) float32
    squared_norms: Tensor = field(init=False)  # (P,) float64, of the rows less the center
    largest_norm: float = field(init=False)  # of the rows themselves
    _sketch: Bfloat16Bounds | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if self.patches.ndim != 2 or not len(self.patches):  # noqa: PLR2004
            raise ValueError(f"A bank is (P, D) with P above 0, not {tuple(self.patches.shape)}.")
        for each in (self.groups, self.places, self.spacing):
            if each is not None and each.shape != self.patches.shape[:1]:
                raise ValueError(f"{len(self.patches)} rows need as many values each, not {tuple(each.shape)}.")
        center = self.patches.mean(dim=0)
        blocks = torch.split(self.patches, _ROWS_PER_NORM)
        norms = [torch.linalg.vector_norm(block - center, dim=1, dtype=torch.float64) for block in blocks]
        largest = max(float(torch.linalg.vector_norm(block, dim=1).max()) for block in blocks)
        object.__setattr__(self, "centroids", None if self.lists is None else BankIndex(self.lists.centroids))
        object.__setattr__(self, "center", center)
        object.__setattr__(self, "squared_norms", torch.cat(norms).square())
        object.__setattr__(self, "largest_norm", largest)

    def __len__(self) -> int:
        return len(self.patches)

    def sketch(self) -> Bfloat16Bounds:
        """Made when first asked for, as it takes half of the bank's memory again."""
        made = self._sketch or Bfloat16Bounds.of(self.patches, self.center)  # two threads may both make it: the same
        object.__setattr__(self, "_sketch", made)
        return made


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
    scratch = _Scratch(memory_limit_bytes, queries.shape[1])
    search = _Search(index, width, scratch, _Hidden(index, exclude_groups, visible_places))
    distances = queries.new_empty((len(queries), width))
    rows = torch.empty((len(queries), width), dtype=torch.int64, device=queries.device)
    if index.lists is not None and index.centroids is not None and visible_places is None:
        for part in scratch.query_slices(len(queries)):
            distances[part], rows[part] = _by_lists(queries[part], search.of(part), index.lists, index.centroids)
        return distances, rows
    left = None  # all of them
    is_large = len(queries) >= _LEAST_QUERIES and len(index) >= _LEAST_ROWS
    if is_large and bfloat16_bounds.multiplies_bfloat16(queries.device):
        left = _fill_by_sketch(distances, rows, queries, search)
    for part in scratch.query_slices(len(queries) if left is None else len(left)):
        some = part if left is None else left[part]
        distances[some], rows[some] = _by_product(queries[some], search.of(some))
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
        converted = self.dim * dtype.itemsize if dtype is torch.float64 else 0
        most = self.limit_bytes // 2 // (queries * (dtype.itemsize + 1) * 2 + converted)
        return most // _ALIGNED_ROWS * _ALIGNED_ROWS or max(1, most)

    def refined_at_once(self) -> int:
        return max(1, min(_REFINED_AT_ONCE, self.limit_bytes // (16 * self.dim)))


@dataclass(frozen=True, slots=True, eq=False)
class _Search:
    index: BankIndex
    k: int
    scratch: _Scratch
    hidden: _Hidden

    def of(self, queries: slice | Tensor) -> _Search:
        """The same for some of the queries."""
        return replace(self, hidden=self.hidden.of(queries))


def _by_product(queries: Tensor, search: _Search) -> tuple[Tensor, Tensor]:
    """What `nearest` finds, from candidates by ranks in float32 and, where those are too coarse, in float64."""
    index, k = search.index, search.k
    count = min(k + _SPARE_CANDIDATES, len(index))
    centered = queries - index.center
    ranks, rows = _ranked(centered, search, count)
    # k rows have at most rank k plus the rounding error; a row that is among the k nearest has at most that plus it.
    highest = ranks[:, k - 1] + 2 * _rounding_error(centered, index)
    is_open = (ranks <= highest[:, None]) & (rows < len(index))
    unsure = is_open[:, -1] & (count < len(index))
    if bool(unsure.any()):
        rows[unsure] = _ranked(queries[unsure].double() - index.center, search.of(unsure), count)[1]
    near = _distances(queries, rows[:, :k], search)
    return _in_order(_all_distances(queries, rows, near, is_open, search), rows, search)


def _by_lists(queries: Tensor, search: _Search, lists: IvfIndex, centroids: BankIndex) -> tuple[Tensor, Tensor]:
    """What `nearest` finds in the lists that each query looks into, or everywhere where that is less than k rows."""
    index, groups = search.index, search.hidden.exclude_groups
    probes = nearest(queries, centroids, PROBES, memory_limit_bytes=search.scratch.limit_bytes)[1]
    rows = torch.empty((len(queries), search.k), dtype=torch.int64)
    if groups is None or index.groups is None:
        rows = lists.nearest(queries, probes, search.k)
    else:
        for group in set(groups.tolist()):
            some = groups == group
            rows[some] = lists.nearest(queries[some], probes[some], search.k, index.groups != group)
    rows = rows.masked_fill(rows < 0, len(index))
    distances, rows = _in_order(_distances(queries, rows, search), rows, search)
    lost = rows[:, -1] < 0
    if bool(lost.any()):
        distances[lost], rows[lost] = _by_product(queries[lost], search.of(lost))
    return distances, rows


def _fill_by_sketch(distances: Tensor, rows: Tensor, queries: Tensor, search: _Search) -> Tensor:
    """Fills in what `nearest` finds, and gives the queries (N,) int64 for which that is left to do.

    Some queries from all over come first: where the sketch tells too few of them apart, it is not asked for the others.
    """

    def fill(some: Tensor) -> Tensor:
        distances[some], rows[some], is_open = _by_sketch(queries[some], search.of(some))
        return some[is_open]

    every = torch.arange(len(queries), device=queries.device)
    tried, others = every[::_TRIED_SHARE], every[every % _TRIED_SHARE != 0]
    left = [fill(tried[part]) for part in search.scratch.query_slices(len(tried))]
    if sum(map(len, left)) > _MOST_OPEN * len(tried):
        return torch.cat((*left, others))
    return torch.cat((*left, *(fill(others[part]) for part in search.scratch.query_slices(len(others)))))


def _by_sketch(queries: Tensor, search: _Search) -> tuple[Tensor, Tensor, Tensor]:
    """What `nearest` finds, from candidates by lower bounds; and for which queries (Q,) they leave it open."""
    index, k = search.index, search.k
    # The bounds are wider than errors of float32. Torch slows down where it chooses more than every 64th of few rows.
    count = min(len(index), 3 * k + 12, max(2 * k + 6, len(index) // 64))
    bank = index.sketch()
    columns = bank.of_queries(queries)
    bounds, rows = _lowest(lambda some: columns @ bank.columns[some].T, columns, search, count)
    near = _distances(queries, rows[:, : k + _SPARE_CANDIDATES], search)
    reach = near.kthvalue(k, dim=1).values
    is_open = (bounds <= bank.highest_bound(reach)[:, None]) & (rows < len(index))
    distances = _all_distances(queries, rows, near, is_open, search)
    return *_in_order(distances, rows, search), is_open[:, -1] & (count < len(index))


def _rounding_error(centered: Tensor, index: BankIndex) -> Tensor:
    """(Q,) bound on the error of a float32 rank: errors of D products add up like a random walk."""
    unit = torch.finfo(torch.float32).eps
    norms: Tensor = torch.linalg.vector_norm(centered, dim=1)
    products = norms.mul(2 * math.sqrt(centered.shape[1]) * index.largest_norm)
    return products.add(index.squared_norms.max()).mul(unit)


def _ranked(centered: Tensor, search: _Search, count: int) -> tuple[Tensor, Tensor]:
    """The lowest ranks (Q, count), ascending, and their rows, for queries (Q, D) less the center, in their precision.

    With c the center, |q - b|^2 = |q - c|^2 + 2 (q - c)c + (|b - c|^2 - 2 (q - c)b). The last bracket is the rank: it
    orders the rows as distance does. Only the queries are centered, which costs no copy of the bank, and yet most of
    what the vectors have in common does not enter the cancelling terms.
    """
    index, dtype = search.index, centered.dtype

    def ranks(some: slice) -> Tensor:
        return torch.addmm(index.squared_norms[some].to(dtype), centered, index.patches[some].to(dtype).T, alpha=-2)

    return _lowest(ranks, centered, search, count)


def _lowest(scores: Callable[[slice], Tensor], queries: Tensor, search: _Search, count: int) -> tuple[Tensor, Tensor]:
    """The lowest scores (Q, count), ascending, and their rows; P where there are no more.

    `scores` gives those of the queries (Q, some) for a slice of the bank.
    """
    total = len(search.index)
    step = search.scratch.rows_per_block(len(queries), queries.dtype)
    best, rows = torch.empty(0), torch.empty(0)  # replaced by those of the first block: a bank has rows
    for start in range(0, total, step):
        part = slice(start, min(start + step, total))
        block = scores(part)
        search.hidden.fill(block, part)
        lowest, at = block.topk(min(count, block.shape[1]), dim=1, largest=False)
        at = torch.where(lowest.isinf(), total, at + start)
        if not start:
            best, rows = lowest, at
            continue
        best, rows = torch.cat((best, lowest), dim=1), torch.cat((rows, at), dim=1)
        best, order = best.topk(min(count, best.shape[1]), dim=1, largest=False)
        rows = rows.gather(1, order)
    return best, rows


def _distances(queries: Tensor, rows: Tensor, search: _Search) -> Tensor:
    """Distances (Q, C) to the rows (Q, C) by direct differences; infinity to row P, which stands for none."""
    patches = search.index.patches
    distances = torch.empty(rows.shape, dtype=queries.dtype, device=queries.device)
    size = max(1, search.scratch.refined_at_once() // rows.shape[1])
    room = queries.new_empty((min(size, len(queries)) * rows.shape[1], queries.shape[1]))  # cheaper to keep than to get
    for start in range(0, len(queries), size):
        part = slice(start, start + size)
        wanted = rows[part].clamp(max=len(patches) - 1)
        differences = room[: wanted.numel()]
        torch.index_select(patches, 0, wanted.flatten(), out=differences)
        differences = differences.view(*wanted.shape, -1)
        differences -= queries[part, None]
        torch.linalg.vector_norm(differences, dim=2, out=distances[part])
    return distances.masked_fill_(rows == len(patches), torch.inf)


def _all_distances(queries: Tensor, rows: Tensor, near: Tensor, is_open: Tensor, search: _Search) -> Tensor:
    """Distances (Q, C) to the rows (Q, C): `near` (Q, some) to the first ones, infinity to those that are not open."""
    some = near.shape[1]
    distances = torch.cat((near, near.new_full(is_open[:, some:].shape, torch.inf)), dim=1)
    for pairs in torch.split(is_open[:, some:].nonzero(), search.scratch.refined_at_once()):
        query, column = pairs[:, 0], pairs[:, 1] + some
        distances[query, column] = _distances(queries[query], rows[query, column, None], search)[:, 0]
    return distances


def _in_order(distances: Tensor, rows: Tensor, search: _Search) -> tuple[Tensor, Tensor]:
    """The k nearest (Q, k), the lower row first among equals; row -1 where there are none."""
    rows, order = rows.sort(dim=1)
    distances, at = distances.gather(1, order).sort(dim=1, stable=True)
    rows = rows.masked_fill(rows == len(search.index), -1).gather(1, at)
    return distances[:, : search.k], rows[:, : search.k]
