"""Approximate search: nearly the exact neighbors, and the same every time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from fakes.engine import fit, ignore_progress, inspect
from fakes.vectors import clustered
from hypothesis import given, settings
from hypothesis import strategies as st

from patchserve.v1 import reference_pb2
from patchserve_server.contract.requests import load_options
from patchserve_server.domain.errors import InvalidInputError
from patchserve_server.domain.reference_options import ReferenceOptions
from patchserve_server.engine.backbone.loading import load_backbone
from patchserve_server.engine.detector import PatchCoreDetector
from patchserve_server.engine.patchcore.scorer import PatchCoreScorer
from patchserve_server.engine.search import ivf_index, ivf_search
from patchserve_server.engine.search.bank_index import BankIndex
from patchserve_server.engine.search.nearest import nearest


@pytest.fixture(autouse=True)
def _small_banks_have_an_ivf_index() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ivf_index, "LEAST_ROWS", 100)
        yield


def approximate(patches: torch.Tensor, groups: torch.Tensor | None = None) -> BankIndex:
    index = BankIndex.build(patches, groups=groups, approximate=True)
    assert index.ivf is not None
    return index


def test_nineteen_of_twenty_neighbors_are_found_and_distances_are_exact() -> None:
    bank = torch.randn((4000, 8), generator=torch.Generator().manual_seed(0))
    queries = torch.randn((200, 8), generator=torch.Generator().manual_seed(1))
    exact, rows = nearest(queries, BankIndex.build(bank), 9)
    distances, found = nearest(queries, approximate(bank), 9)
    shared = sum(len(set(one) & set(other)) for one, other in zip(rows.tolist(), found.tolist(), strict=True))
    assert shared >= 0.95 * rows.numel()
    assert not torch.equal(found, rows)
    assert torch.allclose(distances, torch.cdist(queries, bank).gather(1, found), atol=1e-4)
    assert (distances >= exact - 1e-5).all()
    assert (distances.diff(dim=1) >= 0).all()


@settings(max_examples=20)
@given(rows=st.integers(100, 400), k=st.integers(1, 9), seed=st.integers(0, 50))
def test_a_search_of_all_cells_is_exact(rows: int, k: int, seed: int) -> None:
    bank, queries = clustered(rows, seed), clustered(10, seed + 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ivf_search, "NPROBE", 1000)
        found = nearest(queries, approximate(bank), k)
    for ours, brute in zip(found, nearest(queries, BankIndex.build(bank), k), strict=True):
        assert torch.equal(ours, brute)


@settings(max_examples=20)
@given(part=st.integers(1, 30), seed=st.integers(0, 20))
def test_no_query_changes_what_another_finds(part: int, seed: int) -> None:
    index, queries = approximate(clustered(500, seed)), clustered(31, seed + 1)
    whole = nearest(queries, index, 5)
    parts = [nearest(queries[selected], index, 5) for selected in (slice(part), slice(part, None))]
    assert torch.equal(whole[1], torch.cat([rows for _, rows in parts]))
    assert torch.equal(whole[0], torch.cat([distances for distances, _ in parts]))


def test_equal_banks_have_equal_cells() -> None:
    one, other = approximate(clustered(2000)), approximate(clustered(2000))
    queries = clustered(50, seed=7)
    assert one.ivf is not None
    assert other.ivf is not None
    assert torch.equal(one.ivf.centroids, other.ivf.centroids)
    assert torch.equal(nearest(queries, one, 9)[1], nearest(queries, other, 9)[1])


def test_rows_of_an_excluded_group_are_not_found() -> None:
    bank = clustered(600)
    groups = torch.arange(600) % 4
    exclude = torch.arange(40) % 4
    _, rows = nearest(clustered(40, seed=3), approximate(bank, groups), 5, exclude_groups=exclude)
    assert (rows >= 0).all()
    assert (groups[rows] != exclude[:, None]).all()


def test_a_query_whose_cells_hold_too_few_rows_searches_the_whole_bank() -> None:
    bank, queries = clustered(300), clustered(20, seed=2)
    index = approximate(bank)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ivf_search, "NPROBE", 1)
        distances, rows = nearest(queries, index, 100)
    expected = nearest(queries, BankIndex.build(bank), 100)
    assert torch.equal(rows, expected[1])
    assert torch.equal(distances, expected[0])


def test_a_small_bank_is_searched_exactly() -> None:
    assert BankIndex.build(clustered(99), approximate=True).ivf is None


def test_a_reference_keeps_the_option_and_its_verdicts() -> None:
    detector = PatchCoreDetector(load_backbone("efficientnet_lite2", None, torch.device("cpu")))
    images = np.random.default_rng(0).integers(0, 256, (4, 224, 224, 3), dtype=np.uint8)
    approximate = ReferenceOptions(approximate_search=True)
    exact, near = fit(detector, images), fit(detector, images, approximate)
    assert near.model.options.approximate_search
    assert isinstance(near, PatchCoreScorer)
    assert isinstance(near.index, BankIndex)
    assert near.index.ivf is not None
    one, other = (inspect(scorer, images[:2]) for scorer in (exact, near))
    assert [judged.anomaly.is_anomalous for judged in one] == [judged.anomaly.is_anomalous for judged in other]
    again = detector.extend(fit(detector, images[:3], approximate), images[3:], ignore_progress)
    assert np.array_equal(again.model.memory_bank.patches, near.model.memory_bank.patches)
    assert again.model.calibration == near.model.calibration


def test_it_excludes_a_search_radius() -> None:
    request = reference_pb2.LoadReferenceRequest(reference_id="a", approximate_search=True, search_radius=0.2)
    with pytest.raises(InvalidInputError, match="approximate_search"):
        load_options(request)
