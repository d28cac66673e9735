"""Overlays: what they show, and at which size."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np
import pytest
from fakes.anomaly_maps import hot_spot, verdict_at
from fakes.images import card
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from patchserve_server.domain.input_options import InputShape
from patchserve_server.domain.inspection import HeatmapScale, OverlayFormat, Region
from patchserve_server.imaging import (
    encode_overlay,
    find_regions,
    overlay_size,
    prepare_canvas,
    render_overlay,
)

THRESHOLD = 2.0


def drawn(
    image: Image.Image, anomaly_map: np.ndarray, scale: HeatmapScale, *, max_side_px: int = 0, max_regions: int = 16
) -> np.ndarray:
    size_px = overlay_size(image.size, max_side_px)
    canvas = prepare_canvas(image, scale, map_shape=InputShape(*anomaly_map.shape), size_px=size_px)
    regions: Sequence[Region] = find_regions(anomaly_map, verdict_at(THRESHOLD), image.size, max_regions)
    return render_overlay(canvas, anomaly_map, pixel_threshold=THRESHOLD, regions=regions)


def test_the_relative_overlay_equals_the_notebooks() -> None:
    image, anomaly_map = card(1), hot_spot()
    map01 = (anomaly_map - anomaly_map.min()) / (anomaly_map.max() - anomaly_map.min() + 1e-8)
    colors = cv2.cvtColor(cv2.applyColorMap((map01 * 255).astype(np.uint8), cv2.COLORMAP_JET), cv2.COLOR_BGR2RGB)
    blend = cv2.addWeighted(np.asarray(image.resize((224, 224))), 0.5, colors, 0.5, 0)
    for max_side_px, size_px in ((0, image.size), (160, (160, 120))):
        expected = Image.fromarray(blend).resize(size_px, Image.Resampling.LANCZOS)
        overlay = drawn(image, anomaly_map, HeatmapScale.RELATIVE, max_side_px=max_side_px)
        assert np.array_equal(overlay, np.asarray(expected))


def test_the_calibrated_overlay_keeps_intact_items_cold_and_sharp() -> None:
    image = np.asarray(card(1)).astype(int)
    maps = np.full((224, 224), 0.4, np.float32), hot_spot()
    cold, hot = (drawn(card(1), anomaly_map, HeatmapScale.CALIBRATED).astype(int) for anomaly_map in maps)
    assert np.abs(cold - image).mean() < 12, "hardly tinted"
    lost_green = image[..., 1] - hot[..., 1]  # red covers the green of a brown card
    assert lost_green[110:130, 75:85].mean() > 50
    assert abs(lost_green[:, 240:].mean()) < 10
    edges = [np.abs(np.diff(part, axis=1)).mean() for part in (image[:, 200:], hot[:, 200:])]
    assert edges[1] > 0.8 * edges[0], "details stay visible where it is cold"


@pytest.mark.parametrize("scale", HeatmapScale)
def test_there_is_no_heat_outside_the_region_of_interest(scale: HeatmapScale) -> None:
    anomaly_map = hot_spot()
    anomaly_map[:, 112:] = np.nan  # the right half
    overlay = drawn(card(1), anomaly_map, scale, max_regions=4)
    if scale is HeatmapScale.CALIBRATED:
        plain = np.asarray(card(1))
    else:
        plain = drawn(card(1), np.full((224, 224), 0, np.float32), scale)
    assert np.array_equal(overlay[:, 168:], plain[:, 168:])  # left of it the resize filters mix both halves
    lost_blue = plain[110:130, 75:85, 2].astype(int) - overlay[110:130, 75:85, 2]  # red covers the blue
    assert lost_blue.mean() > 25, "the spot inside is hot"


@pytest.mark.parametrize("max_side_px", [0, 100])
@pytest.mark.parametrize("scale", HeatmapScale)
def test_drawing_does_not_change_its_input(scale: HeatmapScale, max_side_px: int) -> None:
    image, anomaly_map = card(1), hot_spot()
    size_px = overlay_size(image.size, max_side_px)
    canvas = prepare_canvas(image, scale, map_shape=InputShape.square(), size_px=size_px)
    before = canvas.pixels.copy()
    regions = find_regions(anomaly_map, verdict_at(THRESHOLD), image.size, 4)
    first, again = (render_overlay(canvas, anomaly_map, pixel_threshold=THRESHOLD, regions=regions) for _ in range(2))
    assert np.array_equal(first, again)
    assert np.array_equal(canvas.pixels, before)
    assert np.array_equal(np.asarray(image), np.asarray(card(1)))
    assert np.array_equal(anomaly_map, hot_spot())


sides = st.integers(1, 65_535)


@given(sides, sides, st.just(0) | st.integers(16, 65_535))
@example(65_535, 1, 16)
@example(1, 3, 16)
def test_an_overlay_keeps_its_aspect_ratio_and_is_never_enlarged(width: int, height: int, max_side_px: int) -> None:
    size_px = overlay_size((width, height), max_side_px)
    if max_side_px in range(1, max(width, height)):
        assert max(size_px) == max_side_px
        shrink = max_side_px / max(width, height)
        assert all(
            side == max(1, round(source * shrink)) for side, source in zip(size_px, (width, height), strict=True)
        )
    else:
        assert size_px == (width, height)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(16, 320), st.sampled_from(HeatmapScale))
@example(300, 1, 16, HeatmapScale.CALIBRATED)
@example(1, 300, 16, HeatmapScale.RELATIVE)
def test_an_image_of_any_size_has_an_overlay_of_any_size(
    width: int, height: int, max_side_px: int, scale: HeatmapScale
) -> None:
    image = card(2).resize((width, height))
    overlay = drawn(image, hot_spot(), scale, max_side_px=max_side_px)
    assert overlay.shape == (*overlay_size(image.size, max_side_px)[::-1], 3)
    assert overlay.dtype == np.uint8
    for format_ in OverlayFormat:
        encoded = encode_overlay(overlay, format_)
        assert Image.open(io.BytesIO(encoded.data)).size == encoded.size_px == overlay.shape[1::-1]


@pytest.mark.parametrize("scale", HeatmapScale)
def test_a_smaller_overlay_looks_like_the_full_one_scaled_down(scale: HeatmapScale) -> None:
    image = card(1)
    full = drawn(image, hot_spot(), scale, max_regions=0)
    for max_side_px in (300, 160, 80):
        small = drawn(image, hot_spot(), scale, max_side_px=max_side_px, max_regions=0)
        scaled = cv2.resize(full, small.shape[1::-1], interpolation=cv2.INTER_AREA)
        assert np.abs(small.astype(int) - scaled).mean() < 3


def test_outlines_are_sharp_on_an_overlay_of_any_size() -> None:
    """They are drawn after the image is scaled: one pixel wide, and white."""
    black, spot = Image.new("RGB", (800, 600)), np.where(hot_spot() > THRESHOLD, THRESHOLD * 1.01, 0).astype(np.float32)
    for max_side_px in (800, 200, 50):
        overlay = drawn(black, spot, HeatmapScale.CALIBRATED, max_side_px=max_side_px)
        white = (overlay.min(axis=2) > 200).nonzero()
        assert len(white[0]) > max_side_px / 8
        shares = [axis.mean() / side for axis, side in zip(white, overlay.shape, strict=False)]
        assert shares == pytest.approx([0.5, 0.25], abs=0.02)


def test_an_overlay_looks_the_same_as_jpeg_or_webp_and_the_files_are_smaller() -> None:
    image = drawn(card(2), hot_spot(), HeatmapScale.CALIBRATED)
    overlays = [encode_overlay(image, format_) for format_ in OverlayFormat]  # PNG, JPEG, WEBP
    for larger, smaller in pairwise(overlays):
        assert len(smaller.data) < len(larger.data)
    for overlay in overlays:
        decoded = Image.open(io.BytesIO(overlay.data))
        assert (decoded.format, decoded.mode) == (overlay.format.name, "RGB")
        difference = np.asarray(decoded).astype(int) - image
        assert 10 * np.log10(255**2 / max(1e-9, (difference**2).mean())) > 32  # dB
