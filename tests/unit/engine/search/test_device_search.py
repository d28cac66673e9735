"""The search on a GPU finds what the exact search finds, or says for which queries it is not sure."""

from __future__ import annotations

import pytest
import torch
from fakes.devices import waits
from fakes.vectors import clustered, searches, true_distances, vectors
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from patchserve_server.engine.search import device_search
from patchserve_server.engine.search.bank_index import BankIndex
from patchserve_server.engine.search.device_search import DeviceIndex, DeviceNeighbors, search_on_device
from patchserve_server.engine.search.near_places import NearPlaces
from patchserve_server.engine.search.nearest import nearest


def found(queries: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    results = search_on_device([(queries, DeviceIndex.build(BankIndex.build(bank)))], k)
    return results.distances, results.rows, results.is_unresolved


@settings(max_examples=300, deadline=None)
@given(searches())
def test_resolved_queries_have_their_nearest_rows(search: tuple[Tensor, Tensor, int]) -> None:
    queries, bank, k = search
    distances, rows, is_unresolved = found(queries, bank, k)
    exact_distances, exact_rows = nearest(queries, BankIndex.build(bank), k)
    resolved = ~is_unresolved
    torch.testing.assert_close(distances[resolved], exact_distances[resolved], rtol=1e-5, atol=0)
    true = true_distances(queries, bank)
    for query in resolved.nonzero()[:, 0].tolist():
        # Rows whose distances differ by rounding only may change places.
        torch.testing.assert_close(true[query, rows[query]], true[query, exact_rows[query]], rtol=1e-5, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**16), offset=st.sampled_from([0.0, 30.0, 3e3]), scale=st.sampled_from([1e-2, 1.0, 1e4]))
def test_no_wrong_row_is_called_certain_far_from_the_origin(seed: int, offset: float, scale: float) -> None:
    bank, queries = (scale * (clustered(700, one) + offset) for one in (seed, seed + 1))
    distances, rows, is_unresolved = found(queries[:100], bank, 9)
    lowest = true_distances(queries[:100], bank).topk(9, dim=1, largest=False).values
    resolved = ~is_unresolved
    torch.testing.assert_close(distances[resolved].double(), lowest[resolved], rtol=1e-4, atol=0)
    assert (rows >= 0).all()


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    exponent=st.integers(-30, 30),
    rows=st.sampled_from([1, 5, 16, 17, 300, 700]),
    offset=st.sampled_from([0.0, 1.0]),
    k=st.sampled_from([1, 9]),
)
@example(seed=0, exponent=-20, rows=5, offset=0.0, k=9)
@example(seed=0, exponent=-20, rows=300, offset=0.0, k=9)
@example(seed=0, exponent=30, rows=5, offset=0.0, k=9)
def test_nothing_is_called_certain_because_its_squares_are_too_small_or_too_large(
    seed: int, exponent: int, rows: int, offset: float, k: int
) -> None:
    scale = 10.0**exponent
    bank, queries = (scale * (clustered(count, one) + offset) for count, one in ((rows, seed), (20, seed + 1)))
    distances, found_rows, is_unresolved = found(queries, bank, k)
    true = true_distances(queries, bank)
    lowest = true.topk(min(k, rows), dim=1, largest=False).values
    resolved = ~is_unresolved
    torch.testing.assert_close(distances[resolved].double() / scale, lowest[resolved] / scale, rtol=1e-4, atol=1e-6)
    assert torch.isfinite(distances[resolved]).all()
    assert (found_rows[resolved] >= 0).all()
    if -12 < exponent < 12:
        assert resolved.float().mean() > 0.5, "ordinary vectors are resolved"


def test_ordinary_queries_are_resolved() -> None:
    bank, queries = clustered(2000, 1, dim=256), clustered(500, 2, dim=256)
    assert found(queries, bank, 9)[2].float().mean() < 0.05


def test_equal_rows_beyond_the_candidates_are_not_certain() -> None:
    bank = torch.cat((vectors(1, 8, 1).expand(40, 8), vectors(20, 8, 2)))
    assert found(bank[:1], bank, 9)[2].tolist() == [True]


def test_values_that_float16_cannot_say_are_not_certain_or_right() -> None:
    bank, queries = clustered(100, 1), torch.cat((1e7 * vectors(3, 16, 3), clustered(3, 2)))
    distances, _, is_unresolved = found(queries, bank, 9)
    exact, _ = nearest(queries, BankIndex.build(bank), 9)
    torch.testing.assert_close(distances[~is_unresolved], exact[~is_unresolved], rtol=1e-5, atol=0)
    assert not is_unresolved[3:].any()


@pytest.mark.parametrize("rows", [1, 5, 8])
def test_a_small_bank_is_right_for_queries_too_far_away_for_float16(rows: int) -> None:
    """As of a coreset of a few rows that are nearly equal. Its copy is padded, and the padding is no candidate."""
    bank, queries = 1 + 1e-4 * vectors(rows, 8, 1), 1 + vectors(40, 8, 2)
    distances, neighbors, is_unresolved = found(queries, bank, 1)
    true = true_distances(queries, bank)
    assert not is_unresolved.any()
    torch.testing.assert_close(true.gather(1, neighbors)[:, 0], true.amin(dim=1), rtol=1e-6, atol=0)
    torch.testing.assert_close(distances[:, 0].double(), true.amin(dim=1).double(), rtol=1e-5, atol=0)


def test_a_row_that_is_not_a_number_hides_no_other() -> None:
    bank = vectors(5, 8, 1)
    bank[4] = torch.nan
    distances, _, is_unresolved = found(vectors(17, 8, 2), bank, 1)
    exact = true_distances(vectors(17, 8, 2), bank[:4]).amin(dim=1)
    right = torch.isclose(distances[:, 0].double(), exact.double(), rtol=1e-5)
    assert (right | is_unresolved).all()


def test_a_value_that_is_not_a_number_is_not_certain() -> None:
    queries = torch.full((2, 16), torch.nan)
    assert found(queries, clustered(100, 1), 9)[2].all()


def test_a_small_bank_gives_fewer_neighbors() -> None:
    distances, rows, is_unresolved = found(vectors(4, 8, 1), vectors(3, 8, 2), 9)
    assert distances.shape == rows.shape == (4, 3)
    assert not is_unresolved.any()


@pytest.mark.parametrize("radius", [0.1, 0.3])
def test_only_rows_in_reach_are_found(radius: float) -> None:
    grid, rows = (8, 6), 5 * 48
    places = torch.arange(rows) % 48
    places[places == 47] = 0  # nothing is near the last place but its neighbors
    bank, queries, at = clustered(rows, 1), clustered(48, 2), torch.arange(48)
    near = NearPlaces.within(radius, grid, at)
    index = BankIndex.build(bank, places=places)
    results = search_on_device([(queries, DeviceIndex.build(index))], 9, near)
    distances, exact_rows = nearest(queries, index, 9, near=near)
    resolved = ~results.is_unresolved
    assert resolved.any()
    torch.testing.assert_close(results.distances[resolved], distances[resolved], rtol=1e-5, atol=0)
    assert torch.equal(results.rows[resolved], exact_rows[resolved])


def test_a_query_with_nothing_in_reach_is_not_certain() -> None:
    bank = BankIndex.build(clustered(20, 1), places=torch.zeros(20, dtype=torch.int64))
    near = NearPlaces.within(0.1, (10, 10), torch.tensor([0, 99]))
    assert search_on_device([(clustered(2, 2), DeviceIndex.build(bank))], 9, near).is_unresolved.tolist() == [
        False,
        True,
    ]


@pytest.mark.parametrize("limit", ["_RANKS_AT_ONCE", "_VALUES_REFINED", "_GROUPED_COLUMNS"])
def test_parts_of_the_work_change_no_result(monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    bank, queries = clustered(333, 1), clustered(50, 2)
    whole = found(queries, bank, 9)
    monkeypatch.setattr(device_search, limit, 1)
    for one, other in zip(whole, found(queries, bank, 9), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=0)


def test_a_search_waits_for_nothing() -> None:
    bank, queries = clustered(500, 1), clustered(50, 2)
    index = DeviceIndex.build(BankIndex.build(bank, places=torch.arange(500) % 64))
    near = NearPlaces.within(0.2, (8, 8), torch.arange(50))
    with torch.inference_mode(), waits() as found_waits:
        search_on_device([(queries, index)], 9)
        search_on_device([(queries, index), (queries, index)], 9)
        search_on_device([(queries, index)], 9, near)
    assert found_waits == []


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.sampled_from([1, 9, 16, 17, 30, 511, 512, 700]), min_size=2, max_size=4),
    seed=st.integers(0, 2**16),
    k=st.sampled_from([1, 9]),
)
def test_banks_that_are_searched_at_once_give_what_each_gives_alone(sizes: list[int], seed: int, k: int) -> None:
    banks = [10.0**place * clustered(rows, seed + place) for place, rows in enumerate(sizes)]
    indexes = [DeviceIndex.build(BankIndex.build(bank)) for bank in banks]
    asked = [(10.0**place * clustered(5 + place, 9), index) for place, index in enumerate(indexes)]
    alike = [one for one in asked if one[1].counts(k) == indexes[0].counts(k)]
    together = search_on_device(alike, k)
    alone = DeviceNeighbors.join([search_on_device([one], k) for one in alike])
    torch.testing.assert_close(together.distances, alone.distances, rtol=1e-6, atol=0)
    assert torch.equal(together.rows, alone.rows)
    assert torch.equal(together.is_unresolved, alone.is_unresolved)


@pytest.mark.parametrize("rows", [700, 1000])
def test_rows_in_small_and_large_groups_are_those_of_the_exact_search(
    monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr(device_search, "_MANY_ROWS", 800)
    bank, queries = clustered(rows, 1, dim=64), clustered(90, 2, dim=64)
    distances, nearest_rows, is_unresolved = found(queries, bank, 9)
    exact_distances, exact_rows = nearest(queries, BankIndex.build(bank), 9)
    assert is_unresolved.float().mean() < 0.1
    torch.testing.assert_close(distances[~is_unresolved], exact_distances[~is_unresolved], rtol=1e-5, atol=0)
    assert torch.equal(nearest_rows[~is_unresolved], exact_rows[~is_unresolved])


@pytest.mark.parametrize("direction", [-1.0, 1.0, 0.0])
def test_a_tensor_core_that_cuts_off_its_sums_makes_no_wrong_row_certain(
    monkeypatch: pytest.MonkeyPatch, direction: float
) -> None:
    """Each addition may lose a unit in the last place: here of each product, and by chance, as much as is possible."""
    multiply, generator, dim = device_search.multiply, torch.Generator().manual_seed(0), 512

    def cut_off(queries: Tensor, rows: Tensor) -> Tensor:
        ranks = multiply(queries, rows)
        lengths = [torch.linalg.vector_norm(each[:, :dim].float(), dim=1) for each in (queries, rows)]
        share = torch.rand(ranks.shape, generator=generator) * (direction or 2) - (0 if direction else 1)
        return ranks + share * (dim * torch.finfo(torch.float32).eps) * torch.outer(*lengths)

    monkeypatch.setattr(device_search, "multiply", cut_off)
    base = clustered(100, 1, dim=dim)
    bank = torch.cat([base + 0.4 * vectors(100, dim, seed) for seed in range(14)])
    queries = base[:80] + 0.4 * vectors(80, dim, 99)
    distances, _, is_unresolved = found(queries, bank, 3)
    lowest = true_distances(queries, bank).topk(3, dim=1, largest=False).values
    assert not is_unresolved.all()
    torch.testing.assert_close(distances[~is_unresolved].double(), lowest[~is_unresolved], rtol=1e-5, atol=0)


@pytest.mark.parametrize("scale", [1e-10, 1e-15, 1e-20, 1e-30, 0.0])
def test_vectors_whose_squares_are_too_small_are_not_certain_or_right(scale: float) -> None:
    bank, queries = scale * clustered(100, 1), scale * clustered(20, 2)
    distances, _, is_unresolved = found(queries, bank, 9)
    lowest = true_distances(queries, bank).topk(9, dim=1, largest=False).values
    torch.testing.assert_close(distances[~is_unresolved].double(), lowest[~is_unresolved], rtol=1e-4, atol=0)
    assert is_unresolved.all() == (scale < 1e-12)


def test_the_copy_has_the_memory_that_was_predicted() -> None:
    index = DeviceIndex.build(BankIndex.build(clustered(70, 1)))
    assert index.nbytes == DeviceIndex.predict_nbytes(70, 16)
