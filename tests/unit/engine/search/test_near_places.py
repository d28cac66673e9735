"""A query finds exactly the rows at places near to its own, however the work is divided."""

from __future__ import annotations

import pytest
import torch
from fakes.vectors import SMALL_LIMIT_BYTES, TINY_LIMIT_BYTES, vectors
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from patchserve_server.engine.search.bank_index import BankIndex
from patchserve_server.engine.search.near_places import NearPlaces
from patchserve_server.engine.search.nearest import nearest
from patchserve_server.engine.search.parallel import ParallelSearch
from patchserve_server.engine.search.scratch import DEFAULT_MEMORY_LIMIT_BYTES

pytestmark = pytest.mark.usefixtures("candidates_by")

GRIDS = st.tuples(st.integers(1, 40), st.integers(1, 40))
RADII = st.one_of(st.floats(1e-9, 0.2), st.sampled_from([0.3, 1.0]))


def dense_mask(radius: float, grid: tuple[int, int]) -> Tensor:
    """Which places (P, P) bool of the grid are near to each other."""
    rows, columns = torch.arange(grid[0]), torch.arange(grid[1])
    near_rows = (rows[:, None] - rows).abs() <= max(1.0, radius * grid[0])
    near_columns = (columns[:, None] - columns).abs() <= max(1.0, radius * grid[1])
    return (near_rows[:, None, :, None] & near_columns[None, :, None, :]).reshape(grid[0] * grid[1], -1)


def test_a_radius_is_a_share_of_each_side_and_reaches_the_direct_neighbors() -> None:
    assert NearPlaces.within(0.25, (4, 8), torch.zeros(1)).reach == (1, 2)
    assert NearPlaces.within(1e-9, (4, 8), torch.zeros(1)).reach == (1, 1)
    assert NearPlaces.within(1.0, (4, 8), torch.zeros(1)).reach == (4, 8)
    assert NearPlaces.within(0.29, (100, 10), torch.zeros(1)).reach == (29, 2)


@given(grid=GRIDS, radius=RADII)
def test_it_hides_what_is_not_near(grid: tuple[int, int], radius: float) -> None:
    places = torch.arange(grid[0] * grid[1])
    assert torch.equal(~NearPlaces.within(radius, grid, places).hides(places), dense_mask(radius, grid))


@given(grid=GRIDS, radius=RADII, queries=st.integers(1, 30), seed=st.integers(0, 99))
def test_rows_in_reach_are_those_that_a_query_may_find_and_maybe_more(
    grid: tuple[int, int], radius: float, queries: int, seed: int
) -> None:
    total, source = grid[0] * grid[1], torch.Generator().manual_seed(seed)
    own, places = (torch.randint(total, (count,), generator=source) for count in (queries, 80))
    rows = NearPlaces.within(radius, grid, own).rows_in_reach(places)
    found = dense_mask(radius, grid)[own][:, places].any(dim=0).nonzero()[:, 0]
    assert torch.equal(rows, rows.unique())  # type: ignore[no-untyped-call]
    assert set(found.tolist()) <= set(rows.tolist())


@given(grid=GRIDS, radius=RADII, queries=st.integers(0, 200), seed=st.integers(0, 99))
def test_each_query_is_in_one_block(grid: tuple[int, int], radius: float, queries: int, seed: int) -> None:
    own = torch.randint(grid[0] * grid[1], (queries,), generator=torch.Generator().manual_seed(seed))
    blocks = NearPlaces.within(radius, grid, own).blocks()
    if blocks:
        assert torch.equal(torch.cat(blocks).sort().values, torch.arange(queries))


@pytest.mark.parametrize("limit", [TINY_LIMIT_BYTES, SMALL_LIMIT_BYTES, DEFAULT_MEMORY_LIMIT_BYTES])
@settings(max_examples=30)
@given(grid=GRIDS, radius=RADII, threads=st.integers(1, 3), seed=st.integers(0, 99))
def test_a_search_finds_what_it_finds_among_the_near_rows(
    limit: int, grid: tuple[int, int], radius: float, threads: int, seed: int
) -> None:
    total, source = grid[0] * grid[1], torch.Generator().manual_seed(seed)
    places, own = torch.randint(total, (120,), generator=source), torch.randint(total, (25,), generator=source)
    bank, groups = vectors(120, 6, seed), torch.arange(120) // 40
    bank[60:] = bank[:60]  # equal distances: the lower row comes first
    index, excluded = BankIndex.build(bank, groups=groups, places=places), torch.arange(25) % 3
    near = NearPlaces.within(radius, grid, own)
    distances, rows = ParallelSearch(threads, threads * limit).nearest(
        bank[:25], index, 5, exclude_groups=excluded, near=near
    )
    visible = dense_mask(radius, grid)[own][:, places] & (excluded[:, None] != groups)
    for query in range(25):
        allowed = visible[query].nonzero()[:, 0]
        assert int((rows[query] >= 0).sum()) == min(5, len(allowed))
        if len(allowed):
            expected, expected_rows = nearest(bank[query : query + 1], BankIndex.build(bank[allowed]), 5)
            count = expected.shape[1]
            assert torch.equal(rows[query, :count], allowed[expected_rows[0]])
            assert torch.equal(distances[query, :count], expected[0])
        assert distances[query, len(allowed) :].isinf().all()
