"""The coreset is the greedy one, whatever the shortcuts."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from patchserve_server.domain.reference_options import CoresetOptions
from patchserve_server.engine.patchcore import coreset
from patchserve_server.engine.patchcore.coreset import coreset_count, select_coreset


def vectors(count: int, dim: int, seed: int) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def gaps_in_order(features: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Float64, for each row after the first: its distance to the nearest row before it, and the largest there was."""
    exact = features.double()
    reach = torch.full((len(exact),), torch.inf, dtype=torch.float64)
    own, largest = [], []
    for before, row in zip(rows[:-1].tolist(), rows[1:].tolist(), strict=True):
        reach = torch.minimum(reach, torch.linalg.vector_norm(exact - exact[before], dim=1))
        own.append(reach[row])
        largest.append(reach.max())
    return torch.tensor(own), torch.tensor(largest)


def radius(features: Tensor, rows: Tensor) -> float:
    return float(torch.cdist(features, features[rows]).amin(dim=1).max())


@settings(deadline=None, max_examples=30)
@given(
    total=st.integers(2, 150),
    dim=st.integers(1, 20),
    count=st.integers(2, 60),
    pool=st.sampled_from([1, 5, 1024]),
    offset=st.sampled_from([0.0, 100.0]),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
    seed=st.integers(0, 2**16),
)
def test_each_row_is_the_farthest_from_all_before(
    *, total: int, dim: int, count: int, pool: int, offset: float, scale: float, seed: int
) -> None:
    features = (vectors(total, dim, seed) + offset) * scale
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coreset, "_POOL", pool)
        rows = select_coreset(features, count, seed=seed)
    assert len(rows) == min(count, total)
    assert len(set(rows.tolist())) == len(rows)
    own, largest = gaps_in_order(features, rows)
    # Nearer than the farthest by no more than float32 squares of the whole extent can hide.
    extent = float((features - features.mean(dim=0)).abs().max()) * dim**0.5
    assert bool((own.square() >= largest.square() - 1e-5 * extent**2).all())
    assert bool((largest.diff() <= 0).all())


def test_equal_rows_are_chosen_last_and_once() -> None:
    different = torch.cat((torch.zeros(1, 3), torch.eye(3), torch.ones(1, 3)))
    features = different.repeat_interleave(torch.tensor([50, 1, 1, 1, 20]), dim=0)
    rows = select_coreset(features, 100)
    assert sorted(rows.tolist()) == list(range(73))
    assert float(torch.cdist(different, features[rows[:5]]).amin(dim=1).max()) == 0


def test_projection_keeps_distances() -> None:
    features = vectors(200, 1536, seed=1).relu() + 3
    projected = coreset._projected(features, torch.Generator().manual_seed(0))
    assert projected.shape[1] < 1536 / 4
    pairs = torch.triu_indices(200, 200, offset=1)
    ratios = (torch.cdist(projected, projected) / torch.cdist(features, features))[pairs[0], pairs[1]].square()
    assert float(ratios.mean()) == pytest.approx(1, abs=0.05)
    assert 0.1 < float(ratios.min()) <= float(ratios.max()) < 1.9


def test_projected_choice_covers_as_well_as_the_exact_one(monkeypatch: pytest.MonkeyPatch) -> None:
    centers = 4 * vectors(30, 1536, seed=2)
    features = centers.repeat(20, 1) + vectors(600, 1536, seed=3)
    projected = radius(features, select_coreset(features, 60))
    monkeypatch.setattr(coreset, "_projected", lambda features, generator: features)
    exact = radius(features, select_coreset(features, 60))
    assert projected < 1.05 * exact
    assert projected < 0.5 * radius(features, torch.arange(15))


def test_the_same_seed_gives_the_same_rows() -> None:
    features = vectors(400, 600, seed=4)
    assert torch.equal(select_coreset(features, 50, seed=3), select_coreset(features, 50, seed=3))
    assert not torch.equal(select_coreset(features, 50, seed=3), select_coreset(features, 50, seed=4))


def test_progress_counts_up_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coreset, "_POOL", 32)
    seen: list[tuple[int, int]] = []
    select_coreset(vectors(300, 10, seed=5), 120, progress=lambda done, total: seen.append((done, total)))
    done = [step for step, _ in seen]
    assert len(seen) > 3
    assert done == sorted(set(done))
    assert (done[0], seen[-1]) == (1, (120, 120))


@pytest.mark.parametrize(
    ("total", "options", "count"),
    [
        (784, CoresetOptions(), 784),
        (784, CoresetOptions(ratio=0.1), 78),
        (100, CoresetOptions(ratio=0.29), 29),
        (784, CoresetOptions(ratio=1.0), 784),
        (10, CoresetOptions(ratio=0.001), 1),
        (784, CoresetOptions(max_patches=100), 100),
        (784, CoresetOptions(max_patches=10_000), 784),
    ],
)
def test_how_many_are_kept(total: int, options: CoresetOptions, count: int) -> None:
    assert coreset_count(total, options) == count


def test_a_coreset_has_rows() -> None:
    with pytest.raises(ValueError, match="at least 1 row, not 0"):
        select_coreset(torch.ones(3, 2), 0)
