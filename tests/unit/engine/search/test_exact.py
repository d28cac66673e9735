"""Exact search equals brute force in double precision, in blocks of any size, with and without bfloat16 bounds."""

from __future__ import annotations

import pytest
import torch
from fakes.vectors import SMALL_LIMIT_BYTES, TINY_LIMIT_BYTES, searches, true_distances, vectors
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from patchserve_server.engine.search.bank_index import BankIndex
from patchserve_server.engine.search.nearest import nearest
from patchserve_server.engine.search.scratch import DEFAULT_MEMORY_LIMIT_BYTES

pytestmark = pytest.mark.usefixtures("candidates_by")


@settings(deadline=None, max_examples=60)
@given(searches(), st.sampled_from([TINY_LIMIT_BYTES, SMALL_LIMIT_BYTES, DEFAULT_MEMORY_LIMIT_BYTES]))
def test_equals_scikit_learn(search: tuple[Tensor, Tensor, int], limit: int) -> None:
    queries, bank, k = search
    distances, rows = nearest(queries, BankIndex.build(bank), k, memory_limit_bytes=limit)
    k = min(k, len(bank))
    # scikit-learn's brute force loses precision where all vectors are far from the origin: they are centered first.
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
    index = BankIndex.build(bank)
    whole = nearest(queries, index, k)[0]
    in_blocks = nearest(queries, index, k, memory_limit_bytes=TINY_LIMIT_BYTES)[0]
    torch.testing.assert_close(in_blocks, whole, rtol=1e-6, atol=0.0)


def test_an_image_against_itself_has_distance_0() -> None:
    bank = 5 + vectors(784, 256, seed=1).relu()
    distances, rows = nearest(bank, BankIndex.build(bank), 9)
    assert distances[:, 0].eq(0).all()
    assert torch.equal(rows[:, 0], torch.arange(784))


def test_the_other_images_of_a_batch_change_nothing() -> None:
    index = BankIndex.build(vectors(500, 96, seed=2))
    images = [vectors(196, 96, seed) for seed in range(3, 8)]
    together = nearest(torch.cat(images), index, 9)
    alone = [nearest(image, index, 9) for image in images]
    for of_batch, of_images in zip(together, zip(*alone, strict=True), strict=True):
        assert torch.equal(of_batch, torch.cat(of_images))


def test_flat_images_far_from_the_center_are_told_apart() -> None:
    """Patches of empty background differ by less than a float32 product can resolve."""
    flat = 30 + 1e-4 * vectors(300, 64, seed=3)
    textured = 10 * vectors(300, 64, seed=4)
    index = BankIndex.build(torch.cat((flat, textured)))
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
    distances, rows = nearest(queries, BankIndex.build(bank), k)
    true = true_distances(queries, bank)
    torch.testing.assert_close(distances.double(), true.topk(k, largest=False)[0], rtol=2e-6, atol=0.0)
    torch.testing.assert_close(distances.double(), true.gather(1, rows), rtol=2e-6, atol=0.0)


@pytest.mark.parametrize("name", HARD_BANKS)
def test_blocks_do_not_change_a_bit_of_a_hard_distance(name: str) -> None:
    index = BankIndex.build(HARD_BANKS[name])
    queries = torch.cat((index.patches[::8], index.patches[:70] * 1.01))
    whole = nearest(queries, index, 5)[0]
    for limit in (2**16, 2**18):
        assert torch.equal(nearest(queries, index, 5, memory_limit_bytes=limit)[0], whole)


def test_among_equals_the_lower_row_comes_first() -> None:
    bank = torch.tensor([[3.0], [1.0], [-1.0], [3.0]])
    distances, rows = nearest(torch.zeros(1, 1), BankIndex.build(bank), 4)
    assert distances.tolist() == [[1.0, 1.0, 3.0, 3.0]]
    assert rows.tolist() == [[1, 2, 0, 3]]


def test_no_queries_give_empty_results() -> None:
    distances, rows = nearest(torch.empty(0, 4), BankIndex.build(torch.ones(3, 4)), 2)
    assert distances.shape == rows.shape == (0, 2)


def test_k_must_be_at_least_1() -> None:
    with pytest.raises(ValueError, match="k must be at least 1, not 0"):
        nearest(torch.ones(1, 2), BankIndex.build(torch.ones(3, 2)), 0)


def test_rows_near_each_other_and_far_from_the_center_are_found_in_their_order() -> None:
    """A float32 difference from the center is coarser than their distances."""
    bank, queries = 1e-3 * vectors(200, 1, seed=1), 1e-3 * vectors(50, 1, seed=2)
    bank[0] = 1e4
    found, _ = nearest(queries, BankIndex.build(bank), 3)
    expected = true_distances(queries, bank).sort(dim=1).values[:, :3]
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0)
