"""A bank index is built once and checks itself, and its memory is known before it is built."""

from __future__ import annotations

import dataclasses
from typing import Any

import faiss
import pytest
import torch
from fakes.vectors import clustered, searches, vectors
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from patchserve_server.engine.search import bank_index, ivf_index
from patchserve_server.engine.search.bank_index import BankIndex, predict_nbytes
from patchserve_server.engine.search.bfloat16_bounds import Bfloat16Bounds
from patchserve_server.engine.search.ivf_index import IvfIndex
from patchserve_server.engine.search.nearest import nearest
from patchserve_server.engine.search.row_norms import RowNorms
from patchserve_server.engine.search.search_product import SearchProduct


def held_bytes(index: BankIndex) -> int:
    """The bytes of all tensors in the index, each counted once, and of what faiss stores."""
    storages: dict[int, int] = {}

    def visit(value: Any) -> int:
        if isinstance(value, Tensor):
            storages[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
            return 0
        in_faiss = 0
        if isinstance(value, IvfIndex):
            cells = value._index.invlists
            quantizer: Any = faiss.downcast_index(value._index.quantizer)
            in_faiss = sum(cells.list_size(cell) * (cells.code_size + 8) for cell in range(cells.nlist))
            in_faiss += quantizer.codes.size()
        fields = dataclasses.fields(value) if dataclasses.is_dataclass(value) else ()
        return in_faiss + sum(visit(getattr(value, field.name)) for field in fields)

    return visit(index) + sum(storages.values())


@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(1, 300),
    dim=st.integers(1, 20),
    columns=st.sets(st.sampled_from(["groups", "places", "spacing"])),
    approximate=st.booleans(),
    product=st.sampled_from(SearchProduct),
)
def test_its_memory_is_known_before_it_is_built(
    rows: int, dim: int, columns: set[str], approximate: bool, product: SearchProduct
) -> None:
    values = {name: torch.ones(rows, dtype=torch.int64 if name != "spacing" else None) for name in columns}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ivf_index, "LEAST_ROWS", 150)
        patch.setattr(bank_index, "LEAST_ROWS_OF_BOUNDS", 50)  # 157 rows have 50 centroids
        index = BankIndex.build(
            vectors(rows, dim, seed=rows),
            groups=values.get("groups"),
            places=values.get("places"),
            spacing=values.get("spacing"),
            approximate=approximate,
            product=product,
        )
        predicted = predict_nbytes(
            rows,
            dim,
            torch.device("cpu"),
            approximate=approximate,
            values_per_row=len(columns),
            product=product,
        )
    assert (index.ivf is not None) == (approximate and rows >= 150)
    assert (index.bounds is not None) == (product is not SearchProduct.FP32 and rows >= 50 and index.ivf is None)
    assert index.nbytes == predicted == held_bytes(index)


def test_on_a_gpu_neither_bounds_nor_cells_are_planned() -> None:
    rows, dim = 20_000, 64
    planned = predict_nbytes(rows, dim, torch.device("cuda"), approximate=True)
    assert planned == rows * dim * 4 + RowNorms.predict_nbytes(rows, dim)


@settings(deadline=None, max_examples=40)
@given(searches(), st.data())
def test_a_subset_is_searched_like_an_index_of_its_own(search: tuple[Tensor, Tensor, int], data: st.DataObject) -> None:
    queries, bank, k = search
    rows = torch.tensor(data.draw(st.lists(st.integers(0, len(bank) - 1), min_size=1, unique=True).map(sorted)))
    groups = torch.arange(len(bank)) % 3
    excluded = torch.arange(len(queries)) % 3
    whole = BankIndex.build(bank, groups=groups, places=groups, spacing=groups.float())
    part, alone = whole.subset(rows), BankIndex.build(bank[rows], groups=groups[rows])
    assert torch.equal(
        nearest(queries, part, k, exclude_groups=excluded)[0], nearest(queries, alone, k, exclude_groups=excluded)[0]
    )
    assert part.places is not None
    assert part.spacing is not None
    assert part.places.tolist() == part.spacing.tolist() == groups[rows].tolist()


def test_a_large_subset_finds_the_same_rows() -> None:
    bank, queries = clustered(5000, dim=64), clustered(300, seed=1, dim=64)
    rows = torch.arange(0, 5000, 2)
    found = nearest(queries, BankIndex.build(bank).subset(rows), 9)
    for ours, expected in zip(found, nearest(queries, BankIndex.build(bank[rows]), 9), strict=True):
        assert torch.equal(ours, expected)


def test_an_approximate_subset_has_cells_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ivf_index, "LEAST_ROWS", 100)
    whole = BankIndex.build(clustered(400), approximate=True)
    assert whole.subset(torch.arange(200)).ivf is None
    part = whole.subset(torch.arange(200), approximate=True)
    alone = BankIndex.build(clustered(400)[:200], approximate=True)
    assert part.ivf is not None
    assert alone.ivf is not None
    assert torch.equal(part.ivf.centroids, alone.ivf.centroids)


def test_a_new_spacing_shares_the_rest() -> None:
    index = BankIndex.build(vectors(5, 3, seed=0), places=torch.arange(5))
    spaced = index.with_spacing(torch.ones(5))
    assert spaced.spacing is not None
    assert index.spacing is None
    assert spaced.patches is index.patches
    assert spaced.norms is index.norms
    with pytest.raises(ValueError, match="spacing must have one value for each of 5 rows"):
        index.with_spacing(torch.ones(4))


@pytest.mark.parametrize("patches", [torch.empty(0, 4), torch.ones(4), torch.ones(2, 3, 4)])
def test_a_bank_needs_rows(patches: Tensor) -> None:
    with pytest.raises(ValueError, match=r"must be \(P, D\) with at least 1 row"):
        BankIndex.build(patches)


@pytest.mark.parametrize("name", ["groups", "places", "spacing"])
def test_every_row_needs_a_value(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must have one value for each of 3 rows"):
        BankIndex.build(torch.ones(3, 2), **{name: torch.zeros(2)})  # type: ignore[arg-type]


def test_parts_that_do_not_fit_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ivf_index, "LEAST_ROWS", 100)
    bank = clustered(100)
    norms = RowNorms.build(bank)
    ivf = BankIndex.build(bank, approximate=True).ivf
    assert ivf is not None
    with pytest.raises(ValueError, match="norms do not fit"):
        BankIndex(bank[:99], norms)
    with pytest.raises(ValueError, match="bounds have 50 rows"):
        BankIndex(bank, norms, bounds=Bfloat16Bounds.build(bank[:50], norms.center))
    with pytest.raises(ValueError, match="needs the index of its centroids"):
        BankIndex(bank, norms, ivf=ivf)
    with pytest.raises(ValueError, match="40 cells need one centroid each"):
        dataclasses.replace(ivf, centroids=ivf.centroids[:39])
    with pytest.raises(ValueError, match=r"columns must be \(P, D \+ 8\)"):
        Bfloat16Bounds(torch.ones(5, 10), torch.ones(3))
    with pytest.raises(ValueError, match=r"center must be \(D,\)"):
        RowNorms(torch.ones(1, 3), torch.ones(5), 1.0)
    with pytest.raises(ValueError, match="0 or more"):
        RowNorms(torch.ones(3), torch.ones(5), -1.0)
