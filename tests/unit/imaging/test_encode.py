"""Overlays in every format: what other readers read, and the longest side."""

from __future__ import annotations

import io
import tracemalloc

import cv2
import numpy as np
import pytest
from fakes.images import card, noise
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from patchserve_server.domain.errors import ImageTooLargeError, ResponseTooLargeError
from patchserve_server.domain.input_options import InputShape
from patchserve_server.domain.inspection import HeatmapScale, OverlayFormat
from patchserve_server.imaging import (
    check_overlay_bytes,
    check_overlay_size,
    encode_overlay,
    prepare_canvas,
    render_overlay,
)
from patchserve_server.imaging.png import encode_png, encode_png_within


def test_png_is_lossless() -> None:
    image = np.asarray(card(2))
    encoded = encode_overlay(image, OverlayFormat.PNG)
    decoded = Image.open(io.BytesIO(encoded.data))
    assert (decoded.format, encoded.format, encoded.size_px) == ("PNG", OverlayFormat.PNG, (320, 240))
    assert np.array_equal(np.asarray(decoded), image)


@given(
    arrays.arrays(np.uint8, st.tuples(st.integers(1, 300), st.integers(1, 40), st.just(3)), fill=st.integers(0, 255))
)
@example(np.arange(129 * 7 * 3, dtype=np.uint8).reshape(129, 7, 3))  # one row more than a band
def test_two_other_readers_read_a_png_of_any_shape(image: np.ndarray) -> None:
    data = encode_png(image)
    assert data is not None
    with Image.open(io.BytesIO(data)) as file:
        file.verify()
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), image)
    read = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert read is not None
    assert np.array_equal(read, image)


@pytest.mark.parametrize(
    ("format_", "max_px"), [(OverlayFormat.PNG, 65_535), (OverlayFormat.JPEG, 65_500), (OverlayFormat.WEBP, 16_383)]
)
def test_the_longest_side_of_each_format_is_encoded_and_a_longer_one_refused(
    format_: OverlayFormat, max_px: int
) -> None:
    for size_px in ((max_px, 1), (1, max_px)):
        check_overlay_size(size_px, format_)
        longest = np.zeros((*size_px[::-1], 3), np.uint8)
        assert Image.open(io.BytesIO(encode_overlay(longest, format_).data)).size == size_px
    with pytest.raises(
        ImageTooLargeError, match=f"{format_.name} allows at most {max_px:,} per side.*overlay_max_side_px"
    ):
        check_overlay_size((3, max_px + 1), format_)


def test_an_overlay_is_at_most_as_large_as_its_limit() -> None:
    image = np.asarray(card(2))
    for format_ in OverlayFormat:
        nbytes = len(encode_overlay(image, format_).data)
        assert len(encode_overlay(image, format_, nbytes).data) == nbytes
        with pytest.raises(ResponseTooLargeError, match=f"more than {nbytes - 1:,} bytes.*JPEG.*overlay_max_side_px"):
            encode_overlay(image, format_, nbytes - 1)


def test_a_large_png_ends_at_its_limit_and_not_after_it() -> None:
    image = np.random.default_rng(0).integers(0, 256, (4000, 1000, 3), np.uint8)
    tracemalloc.start()
    try:
        assert encode_png_within(image, 2**20) is None
        assert tracemalloc.get_traced_memory()[1] < 2**20 + 3 * 2**20, "one band is filtered and compressed at a time"
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("content", ["noise", "card", "gray"])
@pytest.mark.parametrize("heat", [0.0, 0.5, 1.0, 3.0])
def test_no_overlay_that_could_be_sent_is_refused_before_it_is_drawn(content: str, heat: float) -> None:
    """The check uses an estimate from the image, so what it refuses must really be larger."""
    source = {"noise": noise(600), "card": card(2).resize((600, 600)), "gray": Image.new("RGB", (600, 600), "gray")}
    canvas = prepare_canvas(source[content], HeatmapScale.CALIBRATED, map_shape=InputShape.square(), size_px=(600, 600))
    anomaly_map = np.full((224, 224), heat, np.float32)
    anomaly_map[:100] = np.linspace(0, heat, 224)
    overlay = encode_overlay(render_overlay(canvas, anomaly_map, pixel_threshold=1.0, regions=()), OverlayFormat.PNG)
    for max_bytes in (len(overlay.data), 2 * len(overlay.data)):
        check_overlay_bytes(canvas, OverlayFormat.PNG, max_bytes)


def test_an_overlay_that_is_surely_too_large_is_refused_before_it_is_drawn() -> None:
    canvas = prepare_canvas(noise(600), HeatmapScale.CALIBRATED, map_shape=InputShape.square(), size_px=(600, 600))
    with pytest.raises(ResponseTooLargeError, match="JPEG"):
        check_overlay_bytes(canvas, OverlayFormat.PNG, canvas.pixels.nbytes // 3)
    check_overlay_bytes(canvas, OverlayFormat.JPEG, canvas.pixels.nbytes // 3)
