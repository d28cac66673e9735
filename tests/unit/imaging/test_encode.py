"""Overlays in every format: what other readers read, and the longest side."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from fakes.images import card
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from patchserve_server.domain.errors import ImageTooLargeError
from patchserve_server.domain.inspection import OverlayFormat
from patchserve_server.imaging import check_overlay_size, encode_overlay
from patchserve_server.imaging.png import encode_png


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
