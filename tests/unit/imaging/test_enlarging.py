"""Enlarging by matrix products gives the very same pixels as Pillow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from patchserve_server.domain.images import RgbImage
from patchserve_server.imaging.enlarging import resize_lanczos

sides = st.integers(1, 300)


def noise(width: int, height: int, seed: int) -> RgbImage:
    """Black and white: the largest sums, and many below black and above white."""
    return np.random.default_rng(seed).integers(0, 2, (height, width, 3), dtype=np.uint8) * np.uint8(255)


def by_pillow(image: RgbImage, size_px: tuple[int, int]) -> RgbImage:
    return np.asarray(Image.fromarray(image).resize(size_px, Image.Resampling.LANCZOS))


@settings(deadline=None, max_examples=200)
@given(sides, sides, sides, sides, st.integers(0, 9))
@example(224, 224, 1001, 712, 0)
@example(224, 224, 1920, 1080, 0)
@example(224, 224, 224, 300, 0)
@example(224, 224, 300, 224, 0)
@example(224, 224, 224, 224, 0)
@example(1, 1, 8192, 3, 0)
@example(3, 2, 4, 8193, 0)
@example(7, 5, 6, 90, 0)
@example(7, 5, 90, 4, 0)
def test_every_image_of_any_size_is_resized_as_by_pillow(
    width: int, height: int, new_width: int, new_height: int, seed: int
) -> None:
    image = noise(width, height, seed)
    before = image.copy()
    resized = resize_lanczos(image, (new_width, new_height))
    assert np.array_equal(resized, by_pillow(image, (new_width, new_height)))
    assert resized.flags.c_contiguous
    assert np.array_equal(image, before)


def test_every_level_of_gray_is_rounded_as_by_pillow() -> None:
    """Smooth images have most sums near a half."""
    ramp = np.linspace(0, 255, 224 * 224).reshape(224, 224, 1).repeat(3, axis=2).astype(np.uint8)
    for size_px in ((1001, 712), (448, 448), (640, 480), (4000, 3000)):
        assert np.array_equal(resize_lanczos(ramp, size_px), by_pillow(ramp, size_px))


def test_an_enlarged_image_is_not_resized_by_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    image = noise(20, 30, 0)
    expected = by_pillow(image, (101, 70))
    monkeypatch.delattr(Image, "fromarray")
    assert np.array_equal(resize_lanczos(image, (101, 70)), expected)
