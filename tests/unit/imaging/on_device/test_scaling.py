"""Scaling on a device gives the pixels of Pillow, and of the CPU's canvas nearly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from patchserve_server.domain.images import RgbImage
from patchserve_server.imaging.on_device import scaling
from patchserve_server.imaging.on_device.canvas_weights import reduced_bilinear
from patchserve_server.imaging.on_device.scaling import Scaler, TapsOf
from patchserve_server.imaging.resize_weights import begins_with_height, bicubic, bilinear, lanczos

CPU = torch.device("cpu")
FILTERS: dict[TapsOf, Image.Resampling] = {
    bilinear: Image.Resampling.BILINEAR,
    bicubic: Image.Resampling.BICUBIC,
    lanczos: Image.Resampling.LANCZOS,
}
sides = st.integers(1, 300)
sizes = st.tuples(sides, sides)


def noise(width: int, height: int, seed: int) -> RgbImage:
    """Black and white: the largest sums, and many below black and above white."""
    return np.random.default_rng(seed).integers(0, 2, (height, width, 3), dtype=np.uint8) * np.uint8(255)


def scaled(image: RgbImage, size_px: tuple[int, int], taps: TapsOf) -> RgbImage:
    planes = torch.from_numpy(image.copy()).permute(2, 0, 1)
    return Scaler(CPU).scale(planes, size_px, taps).permute(1, 2, 0).numpy()


def by_pillow(image: RgbImage, size_px: tuple[int, int], taps: TapsOf) -> RgbImage:
    return np.asarray(Image.fromarray(image).resize(size_px, FILTERS[taps]))


@settings(max_examples=150)
@given(sizes, sizes, st.sampled_from(list(FILTERS)), st.integers(0, 9))
@example((1001, 712), (224, 224), bilinear, 0)
@example((1001, 712), (224, 224), bicubic, 0)
@example((224, 224), (1001, 712), lanczos, 0)
@example((300, 224), (224, 224), bilinear, 0)
@example((1, 300), (17, 1), bicubic, 0)
@example((300, 1), (1, 300), lanczos, 0)
@example((2, 252), (123, 53), lanczos, 0)  # the height first
def test_every_image_of_any_size_is_scaled_as_by_pillow(
    size_px: tuple[int, int], new_size_px: tuple[int, int], taps: TapsOf, seed: int
) -> None:
    image = noise(*size_px, seed)
    assert np.array_equal(scaled(image, new_size_px, taps), by_pillow(image, new_size_px, taps))


@pytest.mark.parametrize("taps", FILTERS)
def test_every_level_of_gray_is_rounded_as_by_pillow(taps: TapsOf) -> None:
    """Smooth images have most sums near a half."""
    ramp = np.linspace(0, 255, 400 * 300).reshape(400, 300, 1).repeat(3, axis=2).astype(np.uint8)
    for size_px in ((224, 224), (150, 200), (448, 448), (600, 800)):
        assert np.array_equal(scaled(ramp, size_px, taps), by_pillow(ramp, size_px, taps))


@pytest.mark.parametrize("taps", FILTERS)
def test_of_a_very_long_side_few_pixels_are_one_level_apart(taps: TapsOf) -> None:
    """Sums of more than 500 weights are not exact in float32."""
    image = np.random.default_rng(0).integers(0, 256, (8, 60_000, 3), dtype=np.uint8)
    difference = np.abs(scaled(image, (97, 5), taps).astype(int) - by_pillow(image, (97, 5), taps))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01


def test_pillow_scales_the_height_first_as_the_rule_says() -> None:
    for size_px, new_size_px in (((48, 291), (200, 28)), ((300, 300), (161, 20)), ((300, 300), (160, 20))):
        image = noise(*size_px, seed=0)
        (width, height), (new_width, new_height) = size_px, new_size_px
        between = (width, new_height) if begins_with_height(size_px, new_size_px) else (new_width, height)
        in_order = by_pillow(by_pillow(image, between, lanczos), new_size_px, lanczos)
        assert np.array_equal(in_order, by_pillow(image, new_size_px, lanczos))


@pytest.mark.parametrize("limit", ["_VALUES_AT_ONCE", "_CACHED_BYTES"])
def test_less_memory_changes_no_pixel(monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    image = noise(301, 203, 0)
    whole = scaled(image, (77, 91), bilinear)
    monkeypatch.setattr(scaling, limit, 1)
    assert np.array_equal(scaled(image, (77, 91), bilinear), whole)


def test_weights_are_kept_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    scaler, planes = Scaler(CPU), torch.zeros((3, 40, 50), dtype=torch.uint8)
    monkeypatch.setattr(scaling, "_CACHED_BYTES", 40_000)
    for side_px in range(10, 60):
        scaler.scale(planes, (side_px, side_px), bilinear)
        assert sum(each.nbytes for each in scaler._kept.values()) <= 40_000
    assert len(scaler._kept) > 1


@settings(max_examples=60)
@given(sides, sides, st.integers(2, 9), st.floats(0, 0.99), st.integers(0, 9))
def test_reducing_is_that_of_pillow(width: int, height: int, factor: int, rest: float, seed: int) -> None:
    """Pillow rounds once more, after it has reduced both axes."""
    image = noise(width, height, seed)
    size_px = (max(1, int(width / (factor + rest))), max(1, int(height / (factor + rest))))
    expected = Image.fromarray(image).resize(size_px, Image.Resampling.BILINEAR, reducing_gap=1.0)
    assert np.abs(scaled(image, size_px, reduced_bilinear).astype(int) - np.asarray(expected)).max() <= 2
