"""The bounds of a sketch hold for every row, and are close enough to be of use."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from patchserve_server.engine.search import bfloat16_bounds, exact
from patchserve_server.engine.search.bfloat16_bounds import Bfloat16Bounds, multiplies_bfloat16
from patchserve_server.engine.search.exact import BankIndex, nearest


def vectors(count: int, dim: int, seed: int) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def bounds_and_distances(queries: Tensor, bank: Tensor) -> tuple[Bfloat16Bounds, Tensor, Tensor]:
    """The sketch, its bounds (Q, P) and the true distances (Q, P) float64."""
    of_bank = Bfloat16Bounds.of(bank, bank.mean(dim=0))
    bounds = of_bank.of_queries(queries) @ of_bank.columns.T
    return of_bank, bounds, torch.linalg.vector_norm(queries.double()[:, None] - bank.double(), dim=2)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
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
@given(pairs())
def test_no_row_is_nearer_than_its_bound(given_pair: tuple[Tensor, Tensor]) -> None:
    of_bank, bounds, distances = bounds_and_distances(*given_pair)
    assert bounds.dtype is torch.bfloat16
    assert (bounds <= of_bank.highest_bound(distances.float())).all()


def test_a_bound_is_close_to_the_distance() -> None:
    """Else it would hold, and never rule a row out."""
    of_bank, bounds, distances = bounds_and_distances(vectors(30, 512, seed=1), vectors(200, 512, seed=2))
    assert (bounds > of_bank.highest_bound(0.99 * distances.float())).all()


def queries_tried(queries: Tensor, bank: Tensor, monkeypatch: pytest.MonkeyPatch) -> int:
    """For how many queries a search asked the sketch, on a processor that would."""
    asked = []
    by_sketch = exact._by_sketch

    def counted(some: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
        asked.append(len(some))
        return by_sketch(some, *rest)

    monkeypatch.setattr(bfloat16_bounds, "multiplies_bfloat16", lambda _device: True)
    monkeypatch.setattr(exact, "_by_sketch", counted)
    nearest(queries, BankIndex(bank), 1)
    return sum(asked)


def test_a_sketch_that_tells_nothing_apart_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    copies = vectors(4, 64, seed=3).repeat(500, 1)
    assert queries_tried(copies[:160], copies, monkeypatch) == 20
    assert queries_tried(vectors(160, 64, seed=4), vectors(2000, 64, seed=5), monkeypatch) == 20 + 140


def test_a_small_search_makes_no_sketch(monkeypatch: pytest.MonkeyPatch) -> None:
    assert queries_tried(vectors(63, 64, seed=4), vectors(2000, 64, seed=5), monkeypatch) == 0
    assert queries_tried(vectors(64, 64, seed=4), vectors(1999, 64, seed=5), monkeypatch) == 0


@pytest.mark.parametrize(
    ("instructions", "able"),
    [({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"avx512_f": True, "amx_bf16": False}, False)],
)
def test_only_processors_with_the_instructions(
    instructions: dict[str, bool], able: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions)
    assert multiplies_bfloat16(torch.device("cpu")) is able
    assert not multiplies_bfloat16(torch.device("cuda"))
