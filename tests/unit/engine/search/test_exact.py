"""The search equals brute force in double precision, however it is cut into blocks, with and without a sketch."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from patchserve_server.engine.search import bfloat16_bounds, exact
from patchserve_server.engine.search.exact import BankIndex, nearest

TINY_LIMIT = 1  # bytes: one query and one row at a time
SMALL_LIMIT = 4096


@pytest.fixture(scope="module", autouse=True, params=["float32", "bfloat16"])
def _product(request: pytest.FixtureRequest) -> Iterator[None]:
    """Which product comes first, whatever this processor and the size of the search would choose."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bfloat16_bounds, "multiplies_bfloat16", lambda _device: request.param == "bfloat16")
        patch.setattr(exact, "_LEAST_QUERIES", 1)
        patch.setattr(exact, "_LEAST_ROWS", 0)
        yield


def vectors(count: int, dim: int, seed: int) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def true_distances(queries: Tensor, bank: Tensor) -> Tensor:
    """(Q, P) float64 by direct differences."""
    distances: Tensor = torch.linalg.vector_norm(queries.double()[:, None] - bank.double(), dim=2)
    return distances


@st.composite
def searches(draw: st.DrawFn) -> tuple[Tensor, Tensor, int]:
    """Queries, bank and k: any scale, far from the origin, with equal rows and queries on or close to rows."""
    dim, rows, count = draw(st.integers(1, 40)), draw(st.integers(1, 60)), draw(st.integers(1, 12))
    seed, scale = draw(st.integers(0, 2**16)), draw(st.sampled_from([1e-3, 1.0, 1e3]))
    bank, queries = vectors(rows, dim, seed), vectors(count, dim, seed + 1)
    bank[: draw(st.integers(0, rows))] = bank[-1].clone()
    on_rows = min(draw(st.integers(0, count)), rows)
    queries[:on_rows] = bank[-on_rows:] if on_rows else queries[:0]
    queries[: on_rows // 2] += 1e-4 * vectors(on_rows // 2, dim, seed + 2)
    offset = draw(st.sampled_from([0.0, 1.0, 1e3]))
    return (queries + offset) * scale, (bank + offset) * scale, draw(st.integers(1, 12))


@settings(deadline=None, max_examples=60)
@given(searches(), st.sampled_from([TINY_LIMIT, SMALL_LIMIT, exact.DEFAULT_MEMORY_LIMIT_BYTES]))
def test_equals_scikit_learn(search: tuple[Tensor, Tensor, int], limit: int) -> None:
    queries, bank, k = search
    distances, rows = nearest(queries, BankIndex(bank), k, memory_limit_bytes=limit)
    k = min(k, len(bank))
    # Its own brute force cancels as ours would: what all vectors have in common is taken away before.
    center = bank.double().mean(dim=0)
    brute = NearestNeighbors(n_neighbors=k, algorithm="brute").fit((bank.double() - center).numpy())
    expected = torch.from_numpy(brute.kneighbors((queries.double() - center).numpy())[0])
    size = float((queries - center).abs().max()) + float((bank - center).abs().max())
    torch.testing.assert_close(distances.double(), expected, rtol=2e-6, atol=1e-7 * size)
    torch.testing.assert_close(distances.double(), true_distances(queries, bank).gather(1, rows), rtol=2e-6, atol=0.0)
    assert all(len(set(row)) == k for row in rows.tolist())


@settings(deadline=None, max_examples=25)
@given(searches())
def test_blocks_do_not_change_a_distance(search: tuple[Tensor, Tensor, int]) -> None:
    queries, bank, k = search
    whole = nearest(queries, BankIndex(bank), k)[0]
    cut = nearest(queries, BankIndex(bank), k, memory_limit_bytes=TINY_LIMIT)[0]
    torch.testing.assert_close(cut, whole, rtol=1e-6, atol=0.0)


def test_an_image_against_itself_is_exactly_0() -> None:
    bank = 5 + vectors(784, 256, seed=1).relu()
    distances, rows = nearest(bank, BankIndex(bank), 9)
    assert distances[:, 0].eq(0).all()
    assert torch.equal(rows[:, 0], torch.arange(784))


def test_an_image_does_not_feel_the_others_of_its_batch() -> None:
    index = BankIndex(vectors(500, 96, seed=2))
    images = [vectors(196, 96, seed) for seed in range(3, 8)]
    together = nearest(torch.cat(images), index, 9)
    alone = [nearest(image, index, 9) for image in images]
    for of_batch, of_images in zip(together, zip(*alone, strict=True), strict=True):
        assert torch.equal(of_batch, torch.cat(of_images))


def test_flat_images_far_from_the_center_are_told_apart() -> None:
    """Patches of empty background differ by less than a float32 product can see."""
    flat = 30 + 1e-4 * vectors(300, 64, seed=3)
    textured = 10 * vectors(300, 64, seed=4)
    index = BankIndex(torch.cat((flat, textured)))
    queries = 30 + 1e-4 * vectors(50, 64, seed=5)
    distances, rows = nearest(queries, index, 3)
    expected, expected_rows = true_distances(queries, index.patches).topk(3, largest=False)
    torch.testing.assert_close(distances.double(), expected, rtol=2e-6, atol=0.0)
    assert torch.equal(rows, expected_rows)


HARD_BANKS = {
    "zeros": torch.zeros(400, 48),
    "equal": torch.ones(400, 48),
    "nearly equal": 1 + 1e-6 * vectors(400, 48, seed=9),
    "far away": 1e6 + vectors(400, 48, seed=9),
    "one far row": torch.cat((1e-3 * vectors(399, 48, seed=9), 10 * vectors(1, 48, seed=10))),
    "many copies": vectors(10, 48, seed=9).repeat(40, 1),
    "tiny": 1e-12 * vectors(400, 48, seed=9),
    "few channels": vectors(400, 48, seed=9) * (torch.arange(48) < 2),
}


@pytest.mark.parametrize("name", HARD_BANKS)
@pytest.mark.parametrize("k", [1, 9])
def test_hard_banks(name: str, k: int) -> None:
    bank = HARD_BANKS[name]
    queries = torch.cat((bank[::8], bank[:50] + 1e-3 * bank.abs().mean() * vectors(50, 48, seed=11), bank[-1:] * 2))
    distances, rows = nearest(queries, BankIndex(bank), k)
    true = true_distances(queries, bank)
    torch.testing.assert_close(distances.double(), true.topk(k, largest=False)[0], rtol=2e-6, atol=0.0)
    torch.testing.assert_close(distances.double(), true.gather(1, rows), rtol=2e-6, atol=0.0)


@pytest.mark.parametrize("name", HARD_BANKS)
def test_blocks_do_not_change_a_bit_of_a_hard_distance(name: str) -> None:
    index = BankIndex(HARD_BANKS[name])
    queries = torch.cat((index.patches[::8], index.patches[:70] * 1.01))
    whole = nearest(queries, index, 5)[0]
    for limit in (2**16, 2**18):
        assert torch.equal(nearest(queries, index, 5, memory_limit_bytes=limit)[0], whole)


def test_among_equals_the_lower_row_comes_first() -> None:
    bank = torch.tensor([[3.0], [1.0], [-1.0], [3.0]])
    distances, rows = nearest(torch.zeros(1, 1), BankIndex(bank), 4)
    assert distances.tolist() == [[1.0, 1.0, 3.0, 3.0]]
    assert rows.tolist() == [[1, 2, 0, 3]]


@pytest.mark.parametrize("limit", [TINY_LIMIT, SMALL_LIMIT, exact.DEFAULT_MEMORY_LIMIT_BYTES])
def test_excluded_groups_are_as_if_not_there(limit: int) -> None:
    bank, groups = vectors(90, 12, seed=6), torch.arange(90) // 18
    own = groups.flip(0).to(torch.int32)
    distances, rows = nearest(bank, BankIndex(bank, groups), 5, memory_limit_bytes=limit, exclude_groups=own)
    for query in range(90):
        others = (groups != own[query]).nonzero().flatten()
        expected, at = nearest(bank[query : query + 1], BankIndex(bank[others]), 5)
        assert torch.equal(rows[query], others[at[0]])
        assert torch.equal(distances[query], expected[0])


def test_what_exclusion_leaves_no_row_for_is_infinitely_far() -> None:
    index = BankIndex(torch.tensor([[0.0], [1.0], [2.0], [3.0]]), torch.tensor([7, 7, 7, 8]))
    distances, rows = nearest(torch.zeros(2, 1), index, 2, exclude_groups=torch.tensor([7, 8]))
    assert distances.tolist() == [[3.0, torch.inf], [0.0, 1.0]]
    assert rows.tolist() == [[3, -1], [0, 1]]


def test_no_queries_no_answers() -> None:
    distances, rows = nearest(torch.empty(0, 4), BankIndex(torch.ones(3, 4)), 2)
    assert distances.shape == rows.shape == (0, 2)


@pytest.mark.parametrize("patches", [torch.empty(0, 4), torch.ones(4), torch.ones(2, 3, 4)])
def test_a_bank_has_rows(patches: Tensor) -> None:
    with pytest.raises(ValueError, match=r"A bank is \(P, D\)"):
        BankIndex(patches)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="3 rows need as many values each"):
        BankIndex(torch.ones(3, 2), torch.zeros(2))
    with pytest.raises(ValueError, match="k is at least 1, not 0"):
        nearest(torch.ones(1, 2), BankIndex(torch.ones(3, 2)), 0)
    with pytest.raises(ValueError, match="does not know the groups"):
        nearest(torch.ones(1, 2), BankIndex(torch.ones(3, 2)), 1, exclude_groups=torch.zeros(1))
    with pytest.raises(ValueError, match="does not know the places"):
        nearest(torch.ones(1, 2), BankIndex(torch.ones(3, 2)), 1, visible_places=torch.ones(1, 4, dtype=torch.bool))


@pytest.mark.parametrize("limit", [TINY_LIMIT, SMALL_LIMIT, exact.DEFAULT_MEMORY_LIMIT_BYTES])
def test_rows_at_other_places_are_as_if_not_there(limit: int) -> None:
    bank, places, groups = vectors(90, 12, seed=7), torch.arange(90) % 6, torch.arange(90) // 30
    visible = vectors(90, 6, seed=8) > 0
    visible[:, 0] = True
    distances, rows = nearest(
        bank,
        BankIndex(bank, groups, places),
        5,
        memory_limit_bytes=limit,
        exclude_groups=groups,
        visible_places=visible,
    )
    for query in range(90):
        seen = (visible[query][places] & (groups != groups[query])).nonzero().flatten()
        expected, at = nearest(bank[query : query + 1], BankIndex(bank[seen]), 5)
        assert torch.equal(rows[query], seen[at[0]])
        assert torch.equal(distances[query], expected[0])
