"""The legend that the client draws has the colors that the server draws."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from patchserve_client import HeatmapScale
from patchserve_client._color_scale import scale_colors
from patchserve_server.domain import inspection
from patchserve_server.imaging.heatmap import heat_colors, heat_levels
from patchserve_server.imaging.overlay import _blend_by_heat


@pytest.mark.parametrize("scale", list(HeatmapScale))
def test_the_legend_has_the_colors_of_the_servers_heat_maps(scale: HeatmapScale) -> None:
    rising = np.linspace(0, 4, 256, dtype=np.float32)[None]  # the threshold is in the middle
    levels = heat_levels(rising, inspection.HeatmapScale(scale), pixel_threshold=2.0)
    gray = np.full((1, 256, 3), 128, np.uint8)
    if scale is HeatmapScale.CALIBRATED:
        expected = _blend_by_heat(gray, levels)
    else:
        expected = cv2.addWeighted(gray, 0.5, heat_colors(levels), 0.5, 0).astype(np.uint8, copy=False)
    assert np.abs(scale_colors(scale, 256) - expected[0].astype(int)).max() <= 4
