"""Feature maps become patch vectors as in the paper and the notebook."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from patchserve_server.engine.patchcore.patch_embedding import aggregate_3x3, concat_layers


def test_each_place_becomes_the_mean_of_its_neighborhood() -> None:
    features = torch.randn(2, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    inside = ((0, 0), (0, 0), (1, 1), (1, 1))
    padded = np.pad(features.numpy().astype(np.float64), inside, constant_values=np.nan)
    expected = np.nanmean(np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3)), axis=(-2, -1))
    assert aggregate_3x3(features).numpy() == pytest.approx(expected, abs=1e-6)


def test_the_border_is_as_warm_as_the_middle() -> None:
    assert torch.equal(aggregate_3x3(torch.ones(1, 1, 3, 3)), torch.ones(1, 1, 3, 3))


def test_layers_meet_on_the_grid_of_the_first() -> None:
    generator = torch.Generator().manual_seed(1)
    fine, coarse = torch.randn(2, 4, 6, 8, generator=generator), torch.randn(2, 5, 3, 4, generator=generator)
    patches = concat_layers([fine, coarse], (6, 8))
    stretched = functional.interpolate(coarse, size=(6, 8), mode="bilinear", align_corners=False)
    assert patches.shape == (2, 48, 9)
    assert patches.is_contiguous()
    for row, column in ((0, 0), (2, 7), (5, 3)):
        patch = patches[:, row * 8 + column]
        assert torch.equal(patch, torch.cat((fine, stretched), dim=1)[:, :, row, column])


def test_memory_layout_makes_no_difference() -> None:
    layer = torch.randn(2, 4, 6, 8, generator=torch.Generator().manual_seed(2))
    last = layer.contiguous(memory_format=torch.channels_last)
    patches = concat_layers([last, last], (6, 8))
    assert patches.is_contiguous()
    assert torch.equal(patches, concat_layers([layer, layer], (6, 8)))
