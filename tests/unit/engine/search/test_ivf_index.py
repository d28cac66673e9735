"""Approximate search: nearly the exact neighbors, and the same every time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patchserve.v1 import reference_pb2
from patchserve_server.domain.errors import InvalidInputError
from patchserve_server.domain.reference import ReferenceOptions
from patchserve_server.engine.backbone.loading import load_backbone
from patchserve_server.engine.detector import PatchCoreDetector
from patchserve_server.engine.search import ivf_index
from patchserve_server.engine.search.exact import BankIndex, nearest
from patchserve_server.engine.search.ivf_index import IvfIndex
from patchserve_server.rpc.convert.requests import load_options


@pytest.fixture(autouse=True)
def _small_banks_count_as_large() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ivf_index, "LEAST_ROWS", 100)
        yield


def clustered(rows: int, seed: int = 0, dim: int = 16, clusters: int = 30) -> torch.Tensor:
    """Patch vectors (rows, dim) that lie in heaps, as those of real images do."""
    source = torch.Generator().manual_seed(seed)
    centers = 4 * torch.randn((clusters, dim), generator=torch.Generator().manual_seed(99))
    return centers[torch.randint(clusters, (rows,), generator=source)] + torch.randn((rows, dim), generator=source)


def listed(patches: torch.Tensor, groups: torch.Tensor | None = None) -> BankIndex:
    lists = IvfIndex.of(patches)
    assert lists is not None
    return BankIndex(patches, groups, lists=lists)


def test_nineteen_of_twenty_neighbors_are_found_and_distances_are_exact() -> None:
    bank = torch.randn((4000, 8), generator=torch.Generator().manual_seed(0))
    queries = torch.randn((200, 8), generator=torch.Generator().manual_seed(1))
    exact, rows = nearest(queries, BankIndex(bank), 9)
    distances, found = nearest(queries, listed(bank), 9)
    shared = sum(len(set(one) & set(other)) for one, other in zip(rows.tolist(), found.tolist(), strict=True))
    assert shared >= 0.95 * rows.numel()
    assert not torch.equal(found, rows)
    assert torch.allclose(distances, torch.cdist(queries, bank).gather(1, found), atol=1e-4)
    assert (distances >= exact - 1e-5).all()
    assert (distances.diff(dim=1) >= 0).all()


@settings(max_examples=20)
@given(rows=st.integers(100, 400), k=st.integers(1, 9), seed=st.integers(0, 50))
def test_looking_into_every_list_is_exact(rows: int, k: int, seed: int) -> None:
    bank, queries = clustered(rows, seed), clustered(10, seed + 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("patchserve_server.engine.search.exact.PROBES", 1000)
        found = nearest(queries, listed(bank), k)
    for ours, brute in zip(found, nearest(queries, BankIndex(bank), k), strict=True):
        assert torch.equal(ours, brute)


@settings(max_examples=20)
@given(part=st.integers(1, 30), seed=st.integers(0, 20))
def test_no_query_changes_what_another_finds(part: int, seed: int) -> None:
    index, queries = listed(clustered(500, seed)), clustered(31, seed + 1)
    whole = nearest(queries, index, 5)
    parts = [nearest(queries[some], index, 5) for some in (slice(part), slice(part, None))]
    assert torch.equal(whole[1], torch.cat([rows for _, rows in parts]))
    assert torch.equal(whole[0], torch.cat([distances for distances, _ in parts]))


def test_equal_banks_have_equal_lists() -> None:
    one, other = listed(clustered(2000)), listed(clustered(2000))
    queries = clustered(50, seed=7)
    assert one.lists is not None
    assert other.lists is not None
    assert torch.equal(one.lists.centroids, other.lists.centroids)
    assert torch.equal(nearest(queries, one, 9)[1], nearest(queries, other, 9)[1])


def test_rows_of_an_excluded_group_stay_hidden() -> None:
    bank = clustered(600)
    groups = torch.arange(600) % 4
    exclude = torch.arange(40) % 4
    _, rows = nearest(clustered(40, seed=3), listed(bank, groups), 5, exclude_groups=exclude)
    assert (rows >= 0).all()
    assert (groups[rows] != exclude[:, None]).all()


def test_a_query_whose_lists_hold_too_few_rows_looks_everywhere() -> None:
    bank, queries = clustered(300), clustered(20, seed=2)
    index = listed(bank)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("patchserve_server.engine.search.exact.PROBES", 1)
        distances, rows = nearest(queries, index, 100)
    expected = nearest(queries, BankIndex(bank), 100)
    assert torch.equal(rows, expected[1])
    assert torch.equal(distances, expected[0])


def test_a_small_bank_is_searched_exactly() -> None:
    assert IvfIndex.of(clustered(99)) is None


def test_a_reference_remembers_it_and_judges_alike() -> None:
    detector = PatchCoreDetector(load_backbone("efficientnet_lite2", None, torch.device("cpu")))
    images = np.random.default_rng(0).integers(0, 256, (4, 224, 224, 3), dtype=np.uint8)
    nothing = lambda _stage, _done, _total: None  # noqa: E731
    exact = detector.fit(images, ReferenceOptions(), nothing)
    near = detector.fit(images, ReferenceOptions(approximate_search=True), nothing)
    assert near.options.approximate_search
    one, other = (detector.detect(model, images[:2])[0] for model in (exact, near))
    assert detector._prepare(near).index.lists is not None
    assert detector._prepare(exact).index.lists is None
    assert [it.anomaly.is_anomalous for it in one] == [it.anomaly.is_anomalous for it in other]
    again = detector.extend(detector.fit(images[:3], near.options, nothing), images[3:], nothing)
    assert np.array_equal(again.bank.patches, near.bank.patches)
    assert again.calibration == near.calibration


def test_not_together_with_a_search_radius() -> None:
    request = reference_pb2.LoadReferenceRequest(reference_id="a", approximate_search=True, search_radius=0.2)
    with pytest.raises(InvalidInputError, match="approximate_search"):
        load_options(request)
