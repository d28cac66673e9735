"""Synthetic defects: views of all images, the same at each call."""

from __future__ import annotations

import numpy as np
import pytest
from fakes.images import card
from numpy.typing import NDArray

from patchserve_server.engine.backbone.int8.synthetic_defects import synthetic_defects

IMAGES: NDArray[np.uint8] = np.stack([np.asarray(card(seed).resize((224, 224))) for seed in range(4)])


@pytest.mark.parametrize("count", [1, 3, 4, 9])
def test_views_show_all_images_with_defects_and_are_the_same_each_time(count: int) -> None:
    before = IMAGES.copy()
    views = synthetic_defects(IMAGES, count)
    assert views.shape == (count, 224, 224, 3)
    np.testing.assert_array_equal(views, synthetic_defects(IMAGES, count))
    np.testing.assert_array_equal(IMAGES, before)
    assert not np.array_equal(views, synthetic_defects(IMAGES[::-1], count))
    for at in range(min(count, 2)):  # the first two views are not turned
        changed = views[at] != IMAGES[at * len(IMAGES) // count if count < len(IMAGES) else at]
        assert 0.01 < changed.mean() < 0.9


def test_small_images_get_defects_too() -> None:
    assert synthetic_defects(np.full((1, 8, 8, 3), 100, np.uint8), 6).shape == (6, 8, 8, 3)
