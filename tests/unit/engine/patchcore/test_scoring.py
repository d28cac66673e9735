"""Maps and scores: exactly the notebook's, and sound at every edge of the paper's."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from patchserve_server.domain.input_options import InputShape
from patchserve_server.engine.patchcore.patch_scores import WorstPatches
from patchserve_server.engine.patchcore.scoring import (
    REWEIGHTING_NEIGHBORS,
    highest_score,
    mean_of_nearest,
    mean_spacing,
    notebook_map,
    paper_map,
    reweighted_score,
    spaced_score,
    verdict_score,
)
from patchserve_server.engine.search.bank_index import BankIndex
from patchserve_server.engine.search.nearest import nearest


def vectors(count: int, dim: int, seed: int) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def grid(seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).gamma(2, 3, (28, 28)).astype(np.float32)


def test_patch_score_is_the_mean_of_what_there_is() -> None:
    found = torch.tensor([[1.0, 2.0, 6.0], [1.0, 2.0, torch.inf], [torch.inf] * 3])
    assert mean_of_nearest(found).tolist() == [3.0, 1.5, torch.inf]


def test_the_image_score_is_the_mean_of_the_highest_scores() -> None:
    scores = torch.arange(200.0).repeat(2, 1)
    scores[1] = 3
    assert spaced_score(scores, torch.ones(2, 200), patches_per_tile=200).tolist() == pytest.approx(
        [196.5, 3.0]
    )  # 3 % of 200
    assert spaced_score(torch.tensor([[1.0, 5.0, 3.0]]), torch.ones(1, 3), patches_per_tile=3).tolist() == [5.0]


def test_a_distance_says_less_where_the_reference_is_wide() -> None:
    scores, spacing = torch.tensor([[4.0, 2.0], [4.0, 2.0]]), torch.tensor([[1.0, 1.0], [64.0, 1.0]])
    assert spaced_score(scores, spacing, patches_per_tile=4).tolist() == pytest.approx([4.0, 2.0])


def test_the_verdict_score_is_the_mean_over_all_areas() -> None:
    scores = np.random.default_rng(3).gamma(2, 1, 100)
    highest, areas = np.sort(scores)[::-1], np.arange(1, 21)  # up to a fifth of 100
    expected = np.average([highest[:area].mean() for area in areas], weights=1 / areas)
    score = verdict_score(torch.from_numpy(scores)[None], torch.ones(1, 100))
    assert score.item() == pytest.approx(expected)
    assert verdict_score(torch.tensor([[1.0, 5.0, 3.0]]), torch.ones(1, 3)).tolist() == [5.0]


def test_the_verdict_score_sees_one_patch_in_a_large_image() -> None:
    scores = torch.ones(2, 64 * 48)
    scores[1, 17] = 3
    few, one = verdict_score(scores, torch.ones_like(scores)).tolist()
    assert few == pytest.approx(1)
    assert one > 1.3


def test_the_score_of_tiles_is_the_highest_patch_in_its_spacing() -> None:
    scores = torch.tensor([[1.0, 5.0, 3.0], [2.0, 2.0, 1.0]])
    spacing = torch.tensor([[1.0, 32.0, 1.0], [1.0, 1.0, 1.0]])
    assert highest_score(scores, spacing).tolist() == pytest.approx([3.0, 2.0])  # 32 ** 0.4 = 4


def test_damage_counts_in_a_large_image_as_in_one_of_a_tiles_size() -> None:
    small, large = torch.ones(1, 100), torch.ones(1, 5000)
    small[0, 40:46] = large[0, 3040:3046] = 3.0
    of_both = [spaced_score(scores, torch.ones_like(scores), patches_per_tile=100).item() for scores in (small, large)]
    assert of_both == pytest.approx([of_both[0]] * 2)
    assert spaced_score(large, torch.ones_like(large), patches_per_tile=5000).item() < 0.9 * of_both[0]


def test_mean_spacing_is_of_the_rows_that_are_there() -> None:
    rows = torch.tensor([[0, 2], [1, -1], [-1, -1]])
    assert mean_spacing(torch.tensor([1.0, 2.0, 5.0]), rows).tolist() == [3.0, 2.0, 1.0]


def test_notebook_map_is_the_notebooks() -> None:
    scores = grid(seed=1)
    expected = cv2.resize(scores.astype(np.float64), (224, 224), interpolation=cv2.INTER_LINEAR)
    stretched = notebook_map(scores, InputShape.square())
    assert stretched.shape == (224, 224)
    assert stretched.dtype == np.float32
    assert stretched == pytest.approx(expected, rel=1e-5)


def test_paper_map_is_smoothed_with_sigma_4() -> None:
    scores = grid(seed=2)
    weights = np.exp(-(np.arange(-16, 17) ** 2) / (2 * 4**2))  # cut at 4 sigma
    padded = np.pad(notebook_map(scores, InputShape.square()).astype(np.float64), 16, mode="symmetric")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (33, 33))
    expected = np.einsum("hwij,i,j->hw", windows, weights, weights, optimize=True) / weights.sum() ** 2
    assert paper_map(scores, InputShape.square()) == pytest.approx(expected, rel=1e-4)


def equation_7(patches: Tensor, bank: Tensor) -> float:
    """Straight from the paper, one image, float64."""
    between = torch.linalg.vector_norm(patches.double()[:, None] - bank.double(), dim=2)
    worst = int(between.amin(dim=1).argmax())
    support = int(between[worst].argmin())
    around = torch.linalg.vector_norm(bank.double() - bank.double()[support], dim=1).topk(9, largest=False).indices
    return float((1 - between[worst, support].exp() / between[worst, around].exp().sum()) * between[worst, support])


def reweighted(images: Tensor, index: BankIndex, groups: Tensor | None = None) -> Tensor:
    count, patches, dim = images.shape
    own = None if groups is None else groups.repeat_interleave(patches)
    scores, rows = nearest(images.reshape(-1, dim), index, 1, exclude_groups=own)
    flat = (count, patches)
    candidates = WorstPatches(scores.view(flat), rows.view(flat), images)
    return reweighted_score(
        candidates,
        index.patches.__getitem__,
        lambda support: nearest(support, index, REWEIGHTING_NEIGHBORS, exclude_groups=groups),
    )


def test_image_score_follows_equation_7() -> None:
    bank, images = vectors(80, 6, seed=4), 2 * vectors(60, 6, seed=5).view(3, 20, 6)
    expected = [equation_7(image, bank) for image in images]
    assert reweighted(images, BankIndex.build(bank)).tolist() == pytest.approx(expected, rel=1e-5)


def test_equation_7_leaves_out_the_own_rows() -> None:
    bank, groups = vectors(90, 6, seed=6), torch.arange(90) // 30
    scores = reweighted(bank.view(3, 30, 6), BankIndex.build(bank, groups=groups), torch.arange(3))
    expected = [equation_7(bank[groups == own], bank[groups != own]) for own in range(3)]
    assert scores.tolist() == pytest.approx(expected, rel=1e-5)


def test_equation_7_is_sound_for_large_distances() -> None:
    bank, images = 1e4 * vectors(50, 6, seed=7), 1e5 * vectors(10, 6, seed=8).view(1, 10, 6)
    score = float(reweighted(images, BankIndex.build(bank))[0])
    assert 0 < score <= float(nearest(images[0], BankIndex.build(bank), 1)[0].max())


@pytest.mark.parametrize("rows", [1, 2, 8])
def test_a_tiny_bank_gives_the_distance_itself(rows: int) -> None:
    bank, images = vectors(rows, 6, seed=9), vectors(10, 6, seed=10).view(2, 5, 6)
    peaks = nearest(images.view(-1, 6), BankIndex.build(bank), 1)[0].view(2, 5).amax(dim=1)
    assert torch.equal(reweighted(images, BankIndex.build(bank)), peaks)
    padded = BankIndex.build(torch.cat((bank, images[0], images[0])), groups=torch.tensor([0] * rows + [1] * 10))
    assert torch.equal(reweighted(images, padded, torch.tensor([1, 1])), peaks)


def test_the_reference_itself_scores_0() -> None:
    bank = vectors(40, 6, seed=11)
    assert reweighted(bank[None], BankIndex.build(bank)).tolist() == [0.0]
