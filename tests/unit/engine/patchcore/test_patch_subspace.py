"""The subspace of normal patches against NumPy's singular values in float64."""

from __future__ import annotations

import functools
import operator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from patchserve_server.engine.patchcore.patch_subspace import EXPLAINED_VARIANCE, PatchSubspace, PatchSums


def drawn(seed: int, count: int, dim: int, offset: float = 0.0) -> torch.Tensor:
    """Patches (count, dim) whose variance falls from feature to feature, turned into a random direction."""
    rng = np.random.default_rng(seed)
    turned = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    spread = rng.normal(size=(count, dim)) * 0.5 ** np.arange(dim)
    return torch.from_numpy((spread @ turned + offset).astype(np.float32))


def expected_distances(normal: torch.Tensor, patches: torch.Tensor) -> np.ndarray:
    """By the singular value decomposition of the centered patches."""
    exact, mean = normal.double().numpy(), normal.double().numpy().mean(axis=0)
    _, values, directions = np.linalg.svd(exact - mean, full_matrices=False)
    explained = np.cumsum(values**2) / (values**2).sum()
    basis = directions[: 1 + int((explained < EXPLAINED_VARIANCE).sum())]
    centered = patches.double().numpy() - mean
    return np.asarray(np.linalg.norm(centered - centered @ basis.T @ basis, axis=1))


@given(
    seed=st.integers(0, 2**16),
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=5).filter(lambda counts: sum(counts) > 1),
    dim=st.integers(2, 24),
    offset=st.floats(-10, 10),
)
def test_distances_are_the_residuals_of_the_principal_components(
    seed: int, counts: list[int], dim: int, offset: float
) -> None:
    normal, patches = drawn(seed, sum(counts), dim, offset), drawn(seed + 1, 30, dim, offset)
    sums = functools.reduce(operator.add, map(PatchSums.of, torch.split(normal, counts)))
    found = PatchSubspace.fit(sums).distances(patches).numpy()
    np.testing.assert_allclose(found, expected_distances(normal, patches), rtol=1e-3, atol=1e-4 * (1 + abs(offset)))


@given(seed=st.integers(0, 2**16), order=st.permutations(range(5)), left_out=st.integers(0, 4))
def test_the_order_of_images_does_not_matter_and_one_can_be_taken_out(
    seed: int, order: list[int], left_out: int
) -> None:
    images, patches = [drawn(seed + at, 12, 6) for at in range(5)], drawn(seed + 9, 20, 6)
    sums = [PatchSums.of(image) for image in images]
    total = functools.reduce(operator.add, sums)
    reordered = functools.reduce(operator.add, [sums[at] for at in order])
    distances = PatchSubspace.fit(total).distances(patches)
    torch.testing.assert_close(PatchSubspace.fit(reordered).distances(patches), distances, rtol=1e-4, atol=1e-5)
    others = torch.cat([image for at, image in enumerate(images) if at != left_out])
    without, refitted = PatchSubspace.fit(total - sums[left_out]), PatchSubspace.fit(PatchSums.of(others))
    torch.testing.assert_close(without.distances(patches), refitted.distances(patches), rtol=1e-4, atol=1e-5)


def test_the_basis_is_orthonormal_and_as_small_as_the_share_allows() -> None:
    normal = drawn(3, 500, 16)
    subspace = PatchSubspace.fit(PatchSums.of(normal))
    torch.testing.assert_close(subspace.basis @ subspace.basis.T, torch.eye(len(subspace.basis)))

    def explained(components: int) -> float:
        kept = PatchSubspace(subspace.mean, subspace.basis[:components])
        total = (normal - subspace.mean).square().sum()
        return 1 - float(kept.distances(normal).square().sum() / total)

    assert explained(len(subspace.basis)) >= EXPLAINED_VARIANCE > explained(len(subspace.basis) - 1)


@pytest.mark.parametrize("level", [0.0, 0.5])
def test_equal_patches_span_one_direction_and_are_at_no_distance(level: float) -> None:
    normal = torch.full((10, 4), level)
    subspace = PatchSubspace.fit(PatchSums.of(normal))
    assert subspace.basis.shape == (1, 4)
    assert subspace.distances(normal).max() < 1e-6
