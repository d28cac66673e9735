"""Bounds hold for every row, are tight enough to rule rows out, and are given up where they are not."""

from __future__ import annotations

import pytest
import torch
from fakes.vectors import clustered, true_distances, vectors
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from patchserve_server.engine.search import bounds_search, int8_bounds, search_product
from patchserve_server.engine.search.bank_index import BankIndex
from patchserve_server.engine.search.bfloat16_bounds import Bfloat16Bounds
from patchserve_server.engine.search.bounds import QueryBounds
from patchserve_server.engine.search.int8_bounds import Int8Bounds
from patchserve_server.engine.search.nearest import nearest
from patchserve_server.engine.search.search_product import SearchProduct, can_multiply

CPU = torch.device("cpu")
BOUNDS: dict[SearchProduct, type[Bfloat16Bounds | Int8Bounds]] = {
    SearchProduct.BF16: Bfloat16Bounds,
    SearchProduct.INT8: Int8Bounds,
}


def bounds_and_distances(product: SearchProduct, queries: Tensor, bank: Tensor) -> tuple[QueryBounds, Tensor, Tensor]:
    """The bounds of a bank, as an object and as values (Q, P), and the true distances (Q, P) float64."""
    of_queries = BOUNDS[product].build(bank, bank.mean(dim=0)).of_queries(queries)
    bounds = torch.empty(len(queries), len(bank))
    of_queries.fill(slice(0, len(bank)), bounds)
    return of_queries, bounds, true_distances(queries, bank)


def limits(bounds: QueryBounds, distances: Tensor) -> Tensor:
    """The limit of each query for each of its distances (Q, P)."""
    return torch.stack([bounds.limits(column) for column in distances.float().T], dim=1)


@st.composite
def banks_and_queries(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Queries and bank of any scale and offset, some queries on rows or close to them, some channels all zero.

    Some have most of their length in a few directions, as patch vectors do; some are so small that squares vanish.
    """
    dim, seed = draw(st.integers(1, 300)), draw(st.integers(0, 2**16))
    bank, queries = vectors(draw(st.integers(1, 40)), dim, seed), vectors(draw(st.integers(1, 20)), dim, seed + 1)
    strong, factor = draw(st.integers(0, 4)), draw(st.sampled_from([1.0, 1e2]))
    bank[:, :strong] *= factor
    queries[:, :strong] *= factor
    bank *= torch.logspace(draw(st.sampled_from([-6, 0])), 0, len(bank))[:, None]
    near = min(len(bank), len(queries)) // 2
    queries[:near] = bank[:near] + draw(st.sampled_from([0.0, 1e-6, 1e-2])) * queries[:near]
    bank[:, draw(st.integers(0, dim)) :] = 0
    scale = draw(st.sampled_from([1e-42, 1e-30, 1e-12, 1e-3, 1.0, 1e6]))
    offset = draw(st.sampled_from([0.0, 1.0, 1e3, 1e7]))
    return (queries + offset) * scale, (bank + offset) * scale


@settings(deadline=None, max_examples=200)
@given(vectors_of=banks_and_queries())
def test_no_row_is_nearer_than_its_bound(bounds_product: SearchProduct, vectors_of: tuple[Tensor, Tensor]) -> None:
    bounds, values, distances = bounds_and_distances(bounds_product, *vectors_of)
    assert (values <= limits(bounds, distances)).all()


def test_a_bound_is_close_to_the_distance(bounds_product: SearchProduct) -> None:
    """Otherwise it would hold, but never rule a row out."""
    queries, bank = vectors(30, 512, seed=1), vectors(200, 512, seed=2)
    bounds, values, distances = bounds_and_distances(bounds_product, queries, bank)
    assert (values > limits(bounds, 0.98 * distances)).all()


def open_rows(product: SearchProduct, queries: Tensor, bank: Tensor) -> float:
    """How many rows of a bank the bounds leave for a query, if the distance of the 9th nearest is known."""
    bounds, values, distances = bounds_and_distances(product, queries, bank)
    limit = bounds.limits(distances.kthvalue(9, dim=1).values.float())
    return float((values <= limit[:, None]).sum(dim=1).float().mean())


def test_principal_directions_make_int8_about_as_tight_as_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patch vectors have most of their length in few directions."""
    directions = vectors(8, 512, seed=3)
    bank, queries = (
        5 * vectors(count, 8, seed) @ directions + vectors(count, 512, seed + 1) for count, seed in ((4000, 4), (50, 6))
    )
    left = open_rows(SearchProduct.INT8, queries, bank)
    assert left < 1.5 * open_rows(SearchProduct.BF16, queries, bank)
    monkeypatch.setattr(int8_bounds, "_DIRECTIONS", 1)
    assert open_rows(SearchProduct.INT8, queries, bank) - 9 > 4 * (left - 9)  # 9 are always left


@st.composite
def hard_searches(draw: st.DrawFn) -> tuple[Tensor, Tensor, int]:
    """Searches with many equal rows, equal distances and constant columns, in which bounds rule out some rows."""
    dim, seed = draw(st.integers(1, 40)), draw(st.integers(0, 2**16))
    bank, queries = clustered(draw(st.integers(1, 300)), seed, dim), clustered(draw(st.integers(1, 20)), seed + 1, dim)
    repeated = draw(st.integers(0, len(bank)))
    bank[:repeated] = bank[: draw(st.integers(1, 10))].repeat(len(bank), 1)[:repeated]
    if draw(st.booleans()):
        bank, queries = bank.round(), queries.round()  # many equal distances
    bank[:, draw(st.integers(0, dim)) :] = 3.0
    on_rows = min(len(queries) // 2, len(bank))
    queries[:on_rows] = bank[:on_rows]
    scale, offset = draw(st.sampled_from([1e-42, 1e-20, 1.0, 1e12])), draw(st.sampled_from([0.0, 1e4]))
    return (queries + offset) * scale, (bank + offset) * scale, draw(st.integers(1, 12))


FULL_PRECISION = 1e-17  # of distances: below, squares are near the smallest numbers of float32


def assert_same_neighbors(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    """Equal distances to the last bit, and equal rows. Of rows at the largest distance, others may be left out.

    Where squares of differences are too small for all bits of float32, rows whose distances differ by less are as good.
    """
    (distances, rows), (expected_distances, expected_rows) = found, expected
    assert all(len(set(of_query)) == rows.shape[1] for of_query in rows.tolist())
    if expected_distances.max() < FULL_PRECISION:
        torch.testing.assert_close(distances, expected_distances, rtol=1e-6, atol=1e-44)
        return
    assert torch.equal(distances, expected_distances)
    is_nearer = distances < distances[:, -1:]
    assert torch.equal(rows[is_nearer], expected_rows[is_nearer])


@settings(deadline=None, max_examples=150)
@given(search=hard_searches(), limit=st.sampled_from([2**14, 2**28]))
def test_every_product_finds_the_same_neighbors(
    bounds_product: SearchProduct, search: tuple[Tensor, Tensor, int], limit: int
) -> None:
    queries, bank, k = search
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("patchserve_server.engine.search.bank_index.LEAST_ROWS_OF_BOUNDS", 0)
        patch.setattr("patchserve_server.engine.search.exact.LEAST_QUERIES", 1)
        found = nearest(queries, BankIndex.build(bank, product=bounds_product), k, memory_limit_bytes=limit)
    assert_same_neighbors(found, nearest(queries, BankIndex.build(bank), k))


@pytest.mark.parametrize("rows", [2000, 4096, 9001])
def test_a_bank_of_several_blocks_gives_the_same_neighbors(bounds_product: SearchProduct, rows: int) -> None:
    bank, queries = clustered(rows, dim=48), clustered(200, seed=1, dim=48)
    bank[rows // 2 :: 7] = bank[0]
    found = nearest(queries, BankIndex.build(bank, product=bounds_product), 9)
    assert_same_neighbors(found, nearest(queries, BankIndex.build(bank), 9))


def queries_tried(product: SearchProduct, queries: Tensor, bank: Tensor, monkeypatch: pytest.MonkeyPatch) -> int:
    """For how many queries a search tried the bounds."""
    tried = []
    run = bounds_search._BoundedSearch.run

    def counting(bounded: bounds_search._BoundedSearch) -> Tensor:
        tried.append(len(bounded._queries))
        return run(bounded)

    monkeypatch.setattr(bounds_search._BoundedSearch, "run", counting)
    nearest(queries, BankIndex.build(bank, product=product), 1)
    return sum(tried)


def test_bounds_that_resolve_too_few_queries_are_given_up(
    bounds_product: SearchProduct, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = vectors(4, 64, seed=3).repeat(750, 1)
    assert queries_tried(bounds_product, copies[:2000], copies, monkeypatch) == 1000
    bank = vectors(2000, 64, seed=5)
    assert queries_tried(bounds_product, vectors(2000, 64, seed=4), bank, monkeypatch) == 2000


def test_a_small_search_uses_no_bounds(bounds_product: SearchProduct, monkeypatch: pytest.MonkeyPatch) -> None:
    bank = vectors(2000, 64, seed=5)
    assert queries_tried(bounds_product, vectors(63, 64, seed=4), bank, monkeypatch) == 0
    assert queries_tried(bounds_product, vectors(64, 64, seed=4), bank[:1999], monkeypatch) == 0


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_bf16": True}, {SearchProduct.BF16}),
        ({"amx_bf16": True, "amx_int8": True}, {SearchProduct.BF16, SearchProduct.INT8}),
        ({"avx512_vnni": True}, {SearchProduct.INT8}),
        ({"avx_vnni": True}, {SearchProduct.INT8}),
        ({"avx512_f": True, "amx_bf16": False}, set()),
    ],
)
def test_a_product_needs_its_instructions(
    capabilities: dict[str, bool], expected: set[SearchProduct], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    monkeypatch.setattr(search_product, "_int8_is_exact", lambda: True)
    possible = {product for product in SearchProduct if can_multiply(product, CPU)}
    assert possible == {SearchProduct.FP32, *expected}
    assert [product for product in SearchProduct if can_multiply(product, torch.device("cuda"))] == [SearchProduct.FP32]


def test_int8_products_that_overflow_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_vnni": True})
    monkeypatch.setattr(torch, "_int_mm", lambda first, _second: torch.zeros(len(first), len(first)))
    assert not can_multiply(SearchProduct.INT8, CPU)
