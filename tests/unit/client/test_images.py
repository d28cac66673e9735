"""Images of every kind become the bytes that are sent."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from numpy.typing import NDArray
from PIL import Image

from patchserve_client._images import encoded


def pixels(image: bytes, mode: str) -> NDArray[Any]:
    return np.asarray(Image.open(io.BytesIO(image)).convert(mode))


@settings(deadline=None)
@given(st_numpy.arrays(np.uint8, st.tuples(st.integers(1, 5), st.integers(1, 5), st.sampled_from([3, 4]))))
def test_colored_arrays_keep_their_pixels(array: NDArray[np.uint8]) -> None:
    np.testing.assert_array_equal(pixels(encoded(array), "RGB" if array.shape[2] == 3 else "RGBA"), array)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_gray_arrays_keep_their_pixels(dtype: type[np.generic]) -> None:
    array = np.arange(12, dtype=dtype).reshape(3, 4) * 20
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(encoded(array)))), array)


@settings(deadline=None)
@given(
    st_numpy.arrays(np.uint16, st.tuples(st.integers(1, 5), st.integers(1, 5), st.sampled_from([3, 4]))), st.booleans()
)
def test_colored_arrays_of_16_bits_keep_all_their_bits(array: NDArray[np.uint16], bgr: bool) -> None:
    decoded = cv2.imdecode(np.frombuffer(encoded(array, bgr=bgr), np.uint8), cv2.IMREAD_UNCHANGED)  # BGR or BGRA
    np.testing.assert_array_equal(decoded, array if bgr else array[..., [2, 1, 0, 3][: array.shape[2]]])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I", "F"])
def test_pillow_images_of_every_mode_become_a_png_of_the_same_size(mode: str) -> None:
    data = encoded(Image.new("RGB", (5, 4), "red").convert(mode))
    assert Image.open(io.BytesIO(data)).size == (5, 4)
    assert data.startswith(b"\x89PNG")


def test_a_rotated_pillow_image_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn by 90 degrees to see it upright
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4), "red").save(buffer, "JPEG", exif=exif)
    data = encoded(Image.open(io.BytesIO(buffer.getvalue())))
    assert Image.open(io.BytesIO(data)).size == (4, 6)


def test_files_and_bytes_are_sent_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(b"any bytes")
    for source in (path, str(path), b"any bytes", bytearray(b"any bytes"), memoryview(b"any bytes")):
        assert encoded(source) == b"any bytes"


@pytest.mark.parametrize(
    ("source", "error", "says"),
    [
        (np.zeros((3, 4, 2), np.uint8), ValueError, r"\(H, W, 3\) RGB"),
        (np.zeros((3, 4, 3), np.float32), ValueError, "float32"),
        (np.zeros((3, 4), np.int16), ValueError, "int16"),
        (np.zeros((2, 3, 4, 3), np.uint8), ValueError, r"\(2, 3, 4, 3\)"),
        (np.zeros((0, 4), np.uint8), ValueError, r"\(0, 4\)"),
        (42, TypeError, "not int"),
        (None, TypeError, "not NoneType"),
        ("nowhere.png", FileNotFoundError, "nowhere.png"),
    ],
)
def test_what_is_not_an_image_is_rejected(source: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        encoded(source)


@settings(deadline=None)
@given(st_numpy.arrays(np.uint8, st.tuples(st.integers(1, 5), st.integers(1, 5), st.sampled_from([3, 4]))))
def test_arrays_of_opencv_keep_their_colors(array: NDArray[np.uint8]) -> None:
    expected = array[..., [2, 1, 0]] if array.shape[2] == 3 else array[..., [2, 1, 0, 3]]
    np.testing.assert_array_equal(pixels(encoded(array, bgr=True), "RGB" if array.shape[2] == 3 else "RGBA"), expected)


def test_bgr_changes_only_color_arrays(tmp_path: Path) -> None:
    gray, image = np.arange(12, dtype=np.uint8).reshape(3, 4), Image.new("RGB", (2, 2), "red")
    assert encoded(gray, bgr=True) == encoded(gray)
    assert encoded(image, bgr=True) == encoded(image)
    assert encoded(b"bytes", bgr=True) == b"bytes"
