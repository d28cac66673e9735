"""Thumbnails: small, in the proportions of the image, with the heat map only where there is something to see."""

from __future__ import annotations

import io

import numpy as np
import pytest
from fakes.events import inspection
from PIL import Image

from patchserve_server.imaging import draw_thumbnail

GRAY = np.full((224, 224, 3), 128, np.uint8)
HOT_IN_THE_MIDDLE = np.zeros((224, 224), np.float32)
HOT_IN_THE_MIDDLE[100:124, 100:124] = 5


def thumbnail(source_size_px: tuple[int, int], *, anomalous: bool) -> Image.Image:
    verdict = inspection(anomalous=anomalous).verdict
    return Image.open(io.BytesIO(draw_thumbnail(GRAY, source_size_px, HOT_IN_THE_MIDDLE, verdict)))


@pytest.mark.parametrize(
    ("source", "expected"),
    [((1001, 712), (208, 148)), ((712, 1001), (148, 208)), ((24, 20), (24, 20)), ((9000, 1), (208, 1))],
)
def test_it_has_the_proportions_of_the_image(source: tuple[int, int], expected: tuple[int, int]) -> None:
    picture = thumbnail(source, anomalous=False)
    assert (picture.format, picture.size) == ("JPEG", expected)


def test_an_anomaly_is_colored_where_it_is_hot() -> None:
    red, _, blue = np.asarray(thumbnail((640, 480), anomalous=True).convert("RGB"))[78, 104]
    assert int(red) - int(blue) > 60
    intact = np.asarray(thumbnail((640, 480), anomalous=False).convert("RGB"))
    assert np.ptp(intact) < 8


def test_what_is_outside_of_the_region_of_interest_stays_cold() -> None:
    outside = np.full((224, 224), np.nan, np.float32)
    outside[:10] = 2
    data = draw_thumbnail(GRAY, (640, 480), outside, inspection(anomalous=True).verdict)
    assert np.asarray(Image.open(io.BytesIO(data))).shape == (156, 208, 3)
