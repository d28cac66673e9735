"""Overlays that a device draws look like those of the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from fakes.anomaly_maps import hot_spot, verdict_at
from fakes.images import card
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

from patchserve_server.domain.images import AnomalyMap, RgbImage
from patchserve_server.domain.input_options import InputShape
from patchserve_server.domain.inspection import HeatmapScale, Region
from patchserve_server.domain.jpeg_file import JpegFile
from patchserve_server.domain.overlay_drawing import OverlayDrawing
from patchserve_server.imaging import find_regions, heat_levels, overlay_size, prepare_canvas, render_overlay
from patchserve_server.imaging.on_device import drawing as drawing_module
from patchserve_server.imaging.on_device.drawing import Painter
from patchserve_server.imaging.on_device.scaling import Scaler

CPU, THRESHOLD = torch.device("cpu"), 2.0
sides = st.integers(1, 300)
RELATIVE, CALIBRATED = HeatmapScale.RELATIVE, HeatmapScale.CALIBRATED
LEVELS = {RELATIVE: 0, CALIBRATED: 4}
"""How far apart a pixel may be. A heat level that is one apart is up to 4 levels of a color."""
OUTLINE_LEVELS = 32
"""The same on an outline: OpenCV rounds for each line of it, and in a small overlay many of them meet in a pixel."""

_FEW_LEVELS = 3000  # of an overlay that is hardly more than its outlines


def regions_of(anomaly_map: AnomalyMap, image: Image.Image) -> Sequence[Region]:
    return find_regions(anomaly_map, verdict_at(THRESHOLD), image.size, 16)


def assert_alike(image: Image.Image, anomaly_map: AnomalyMap, scale: HeatmapScale, size_px: tuple[int, int]) -> None:
    for regions, levels in (((), LEVELS[scale]), (regions_of(anomaly_map, image), OUTLINE_LEVELS)):
        drawn, expected = (draw(image, anomaly_map, scale, size_px, regions) for draw in (by_device, by_cpu))
        assert drawn.shape == expected.shape
        difference = np.abs(drawn.astype(int) - expected)
        assert difference.max() <= (levels if scale is CALIBRATED else 0)
        assert difference.sum() < 0.5 * max(difference.size, _FEW_LEVELS)


def by_cpu(
    image: Image.Image,
    anomaly_map: AnomalyMap,
    scale: HeatmapScale,
    size_px: tuple[int, int],
    regions: Sequence[Region] = (),
) -> RgbImage:
    canvas = prepare_canvas(image, scale, map_shape=InputShape(*anomaly_map.shape), size_px=size_px)
    return render_overlay(canvas, anomaly_map, pixel_threshold=THRESHOLD, regions=regions)


def by_device(
    image: Image.Image,
    anomaly_map: AnomalyMap,
    scale: HeatmapScale,
    size_px: tuple[int, int],
    regions: Sequence[Region] = (),
) -> RgbImage:
    outlines = [region.polygon for region in regions]
    levels = heat_levels(anomaly_map, scale, THRESHOLD)
    drawing = OverlayDrawing(JpegFile(b"", image.size), levels, scale, size_px, outlines)
    painter = Painter(CPU, Scaler(CPU))
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
    before = pixels.clone()
    drawn = painter.draw(pixels, drawing)
    assert drawn.dtype == torch.uint8
    assert torch.equal(pixels, before), "the image is only read"
    return drawn.permute(1, 2, 0).numpy()


@pytest.mark.parametrize("max_side_px", [0, 250, 160, 100, 37])
@pytest.mark.parametrize("scale", HeatmapScale)
@pytest.mark.parametrize("map_side_px", [224, 448])
def test_an_overlay_is_that_of_the_cpu(scale: HeatmapScale, max_side_px: int, map_side_px: int) -> None:
    image, anomaly_map = card(1), hot_spot(map_side_px)
    assert_alike(image, anomaly_map, scale, overlay_size(image.size, max_side_px))


@settings(max_examples=60)
@given(sides, sides, st.integers(16, 320), st.sampled_from(HeatmapScale), st.integers(0, 9))
@example(300, 1, 16, CALIBRATED, 0)
@example(1, 300, 16, RELATIVE, 0)
@example(300, 200, 17, CALIBRATED, 0)
@example(14, 1, 16, CALIBRATED, 1)
def test_so_it_is_for_any_size_and_any_map(
    width: int, height: int, max_side_px: int, scale: HeatmapScale, seed: int
) -> None:
    image = card(2).resize((width, height))
    rough = np.random.default_rng(seed).uniform(0, 6, (9, 7)).astype(np.float32)
    anomaly_map: AnomalyMap = cv2.resize(rough, (64, 80), interpolation=cv2.INTER_LINEAR).astype(np.float32)
    anomaly_map[:, 50:] = np.nan  # outside the region of interest
    assert_alike(image, anomaly_map, scale, overlay_size(image.size, max_side_px))


def test_outlines_are_drawn_by_the_same_code() -> None:
    """On black, gray and white: in between, what is drawn is linear."""
    anomaly_map = hot_spot()
    for level in (0, 90, 200, 255):
        image = Image.new("RGB", (700, 500), (level, level, level))
        regions = regions_of(anomaly_map, image)
        drawn, expected = (draw(image, anomaly_map, CALIBRATED, image.size, regions) for draw in (by_device, by_cpu))
        assert np.abs(drawn.astype(int) - expected).max() <= LEVELS[CALIBRATED]
        assert (drawn != by_device(image, anomaly_map, CALIBRATED, image.size)).any(), "there is an outline"


@pytest.mark.parametrize("scale", HeatmapScale)
def test_less_memory_changes_nothing(monkeypatch: pytest.MonkeyPatch, scale: HeatmapScale) -> None:
    regions = regions_of(hot_spot(), card(1))
    whole = by_device(card(1), hot_spot(), scale, (250, 188), regions)
    monkeypatch.setattr(drawing_module, "_VALUES_AT_ONCE", 1)
    in_bands = by_device(card(1), hot_spot(), scale, (250, 188), regions)
    assert np.abs(in_bands.astype(int) - whole).max() <= (scale is CALIBRATED), "torch rounds otherwise on more planes"


class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The largest float32 tensor that the device holds."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.values = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.dtype == torch.float32:
            self.values = max(self.values, result.numel())
        return result


def test_outlines_of_a_large_overlay_need_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing_module, "_VALUES_AT_ONCE", 2**14)
    outline = ((0, 0), (699, 0), (699, 499), (0, 499))
    levels, size_px = heat_levels(hot_spot(), CALIBRATED, THRESHOLD), (700, 500)
    drawing = OverlayDrawing(JpegFile(b"", size_px), levels, CALIBRATED, size_px, (outline,))
    painter, pixels = Painter(CPU, Scaler(CPU)), torch.zeros((3, 500, 700), dtype=torch.uint8)
    with Largest() as largest:
        painter.draw(pixels, drawing)
    assert largest.values <= 700 * 500, "a plane at most, and a band of three"


@pytest.mark.parametrize(
    ("levels", "size_px"),
    [((4, 4), (-1, 5)), ((4, 4), (0, 5)), ((4, 4), (10**5, 1)), ((0, 4), (5, 5)), ((4,), (5, 5))],
)
def test_a_drawing_that_nobody_can_ask_for_is_none(levels: tuple[int, ...], size_px: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"pixels|levels|unpack"):
        OverlayDrawing(JpegFile(b"", (8, 8)), np.zeros(levels, np.uint8), CALIBRATED, size_px)
