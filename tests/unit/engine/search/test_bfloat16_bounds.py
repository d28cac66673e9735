"""bfloat16 bounds hold for every row, and are tight enough to rule rows out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fakes.vectors import true_distances, vectors
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from patchserve_server.engine.search import bfloat16_bounds, bounds_search
from patchserve_server.engine.search.bank_index import BankIndex
from patchserve_server.engine.search.bfloat16_bounds import Bfloat16Bounds, multiplies_bfloat16
from patchserve_server.engine.search.nearest import nearest


def bounds_and_distances(queries: Tensor, bank: Tensor) -> tuple[Bfloat16Bounds, Tensor, Tensor]:
    """The bounds of a bank, as an object and as values (Q, P), and the true distances (Q, P) float64."""
    of_bank = Bfloat16Bounds.build(bank, bank.mean(dim=0))
    bounds = of_bank.query_columns(queries) @ of_bank.columns.T
    return of_bank, bounds, true_distances(queries, bank)


@st.composite
def banks_and_queries(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Queries and bank of any scale and offset, some queries on rows or close to them, some channels all zero."""
    dim, seed = draw(st.integers(1, 300)), draw(st.integers(0, 2**16))
    bank, queries = vectors(draw(st.integers(1, 40)), dim, seed), vectors(draw(st.integers(1, 20)), dim, seed + 1)
    bank *= torch.logspace(draw(st.sampled_from([-6, 0])), 0, len(bank))[:, None]
    near = min(len(bank), len(queries)) // 2
    queries[:near] = bank[:near] + draw(st.sampled_from([0.0, 1e-6, 1e-2])) * queries[:near]
    bank[:, draw(st.integers(0, dim)) :] = 0
    scale, offset = draw(st.sampled_from([1e-12, 1e-3, 1.0, 1e6])), draw(st.sampled_from([0.0, 1.0, 1e3]))
    return (queries + offset) * scale, (bank + offset) * scale


@settings(deadline=None, max_examples=200)
@given(banks_and_queries())
def test_no_row_is_nearer_than_its_bound(bank_and_queries: tuple[Tensor, Tensor]) -> None:
    of_bank, bounds, distances = bounds_and_distances(*bank_and_queries)
    assert bounds.dtype is torch.bfloat16
    assert (bounds <= of_bank.highest_bound(distances.float())).all()


def test_a_bound_is_close_to_the_distance() -> None:
    """Otherwise it would hold, but never rule a row out."""
    of_bank, bounds, distances = bounds_and_distances(vectors(30, 512, seed=1), vectors(200, 512, seed=2))
    assert (bounds > of_bank.highest_bound(0.99 * distances.float())).all()


def queries_tried(queries: Tensor, bank: Tensor, monkeypatch: pytest.MonkeyPatch) -> int:
    """For how many queries a search tried the bounds, on a processor that multiplies bfloat16."""
    tried = []
    search_by_bounds = bounds_search._search_by_bounds

    def counting(some_queries: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
        tried.append(len(some_queries))
        return search_by_bounds(some_queries, *rest)

    monkeypatch.setattr(bfloat16_bounds, "multiplies_bfloat16", lambda _device: True)
    monkeypatch.setattr(bounds_search, "_search_by_bounds", counting)
    nearest(queries, BankIndex.build(bank), 1)
    return sum(tried)


def test_bounds_that_resolve_too_few_queries_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    copies = vectors(4, 64, seed=3).repeat(500, 1)
    assert queries_tried(copies[:160], copies, monkeypatch) == 20
    assert queries_tried(vectors(160, 64, seed=4), vectors(2000, 64, seed=5), monkeypatch) == 20 + 140


def test_a_small_search_uses_no_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert queries_tried(vectors(63, 64, seed=4), vectors(2000, 64, seed=5), monkeypatch) == 0
    assert queries_tried(vectors(64, 64, seed=4), vectors(1999, 64, seed=5), monkeypatch) == 0


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"avx512_f": True, "amx_bf16": False}, False)],
)
def test_bounds_need_a_processor_with_bfloat16_instructions(
    capabilities: dict[str, bool], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert multiplies_bfloat16(torch.device("cpu")) is expected
    assert not multiplies_bfloat16(torch.device("cuda"))
