"""Frames of cameras in every pixel format become RGB."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from fakes.images import card
from hypothesis import given
from hypothesis import strategies as st

from patchserve_server.domain.errors import ImageTooLargeError, InvalidInputError, UndecodableImageError
from patchserve_server.domain.images import RgbImage, SentImage
from patchserve_server.domain.raw_frame import PIXEL_FORMATS, RawFrame
from patchserve_server.imaging import ImageLimits, open_image, to_rgb

CARD: RgbImage = np.asarray(card(2))  # (240, 320, 3)
FIRST_PIXELS = {"bayerrg": "RGGB", "bayergr": "GRBG", "bayergb": "GBRG", "bayerbg": "BGGR"}
DEPTHS = (8, 10, 12, 14, 16)


def in_format(rgb: RgbImage, name: str) -> np.ndarray:
    """The samples of a camera that sees this image."""
    format_ = PIXEL_FORMATS[name]
    samples = _laid_out(rgb, format_.layout.value)
    in_bits: np.ndarray = np.rint(samples * ((2**format_.bits - 1) / 255)).astype(format_.dtype)
    return in_bits


def _laid_out(rgb: RgbImage, layout: str) -> np.ndarray:
    if layout in FIRST_PIXELS:
        mosaic = np.empty(rgb.shape[:2], np.uint8)
        for position, color in enumerate(FIRST_PIXELS[layout]):
            top, left = divmod(position, 2)
            mosaic[top::2, left::2] = rgb[top::2, left::2, "RGB".index(color)]
        return mosaic
    layouts: dict[str, Callable[[], np.ndarray]] = {
        "rgb": lambda: rgb,
        "bgr": lambda: rgb[..., ::-1],
        "mono": lambda: rgb[..., 1],
        "yuv422_8": lambda: _yuv422(rgb),
        "yuv422_8_uyvy": lambda: _yuv422(rgb)[..., ::-1],
        "i420": lambda: cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420),
        "nv12": lambda: _nv12(rgb),
    }
    return layouts[layout]()


def _nv12(rgb: RgbImage) -> np.ndarray:
    planar = cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420)
    height, width = rgb.shape[:2]
    blue_difference, red_difference = planar[height:].reshape(2, -1)
    pairs = np.stack([blue_difference, red_difference], axis=-1).reshape(height // 2, width)
    return np.vstack([planar[:height], pairs])


def _yuv422(rgb: RgbImage) -> np.ndarray:
    """(H, W, 2): luma, and blue and red differences in turn, as BT.601 defines them for video."""
    red, green, blue = np.moveaxis(rgb.astype(float), -1, 0)
    luma = 16 + (65.481 * red + 128.553 * green + 24.966 * blue) / 255
    blue_difference = 128 + (-37.797 * red - 74.203 * green + 112 * blue) / 255
    red_difference = 128 + (112 * red - 93.786 * green - 18.214 * blue) / 255
    differences = np.empty_like(luma)
    differences[:, ::2] = (blue_difference[:, ::2] + blue_difference[:, 1::2]) / 2
    differences[:, 1::2] = (red_difference[:, ::2] + red_difference[:, 1::2]) / 2
    rounded: np.ndarray = np.rint(np.stack([luma, differences], axis=-1))
    return rounded


@pytest.mark.parametrize("name", PIXEL_FORMATS)
def test_a_frame_of_every_format_shows_what_the_camera_saw(name: str) -> None:
    frame = RawFrame(in_format(CARD, name), PIXEL_FORMATS[name])
    assert frame.size_px == (320, 240)
    rgb = to_rgb(frame)
    assert rgb.shape == CARD.shape
    assert rgb.dtype == np.uint8
    if name.startswith(("rgb", "bgr")):
        assert np.array_equal(rgb, CARD)
    elif name.startswith("mono"):
        assert np.array_equal(rgb, np.repeat(CARD[..., 1:2], 3, axis=-1))
    else:  # colors at each pixel are interpolated
        difference = np.abs(rgb.astype(int) - CARD)
        assert difference.mean() < 8
        assert np.abs(difference.mean(axis=(0, 1))).max() < 10


@pytest.mark.parametrize("name", PIXEL_FORMATS)
@pytest.mark.parametrize("color", [(255, 255, 255), (0, 0, 0), (200, 30, 90)])
def test_one_color_stays_the_same_up_to_the_borders(name: str, color: tuple[int, int, int]) -> None:
    rgb = np.full((8, 12, 3), color, np.uint8)
    expected = np.repeat(rgb[..., 1:2], 3, axis=-1) if name.startswith("mono") else rgb
    decoded = to_rgb(RawFrame(in_format(rgb, name), PIXEL_FORMATS[name]))
    assert np.abs(decoded.astype(int) - expected).max() <= 3


@pytest.mark.parametrize("bits", DEPTHS[1:])
@pytest.mark.parametrize("layout", ["mono", "rgb", "bgr", *FIRST_PIXELS])
def test_the_same_frame_in_8_bits_and_in_more_is_the_same_image(layout: str, bits: int) -> None:
    eight, deep = f"{layout}8", f"{layout}{bits}"
    assert np.array_equal(
        to_rgb(RawFrame(in_format(CARD, eight), PIXEL_FORMATS[eight])),
        to_rgb(RawFrame(in_format(CARD, deep), PIXEL_FORMATS[deep])),
    )


@given(st.integers(1, 65_535))
def test_a_white_level_holds_for_16_bits_only(white_level: int) -> None:
    ramp = np.arange(0, 4096, dtype=np.uint16).reshape(64, 64)
    deep = to_rgb(RawFrame(ramp, PIXEL_FORMATS["mono16"]), white_level)[..., 0]
    assert (np.diff(deep.ravel().astype(int)) >= 0).all()
    assert (deep[ramp >= white_level] == 255).all()
    twelve = RawFrame(ramp, PIXEL_FORMATS["mono12"])
    assert np.array_equal(to_rgb(twelve, white_level), to_rgb(twelve))
    assert len(np.unique(to_rgb(twelve))) == 256


def test_a_sample_with_more_bits_than_the_format_is_refused_and_the_error_names_another_format() -> None:
    shifted = np.array([[4095 << 4, 0]], np.uint16)
    with pytest.raises(UndecodableImageError, match=r"65520, but mono12 has at most 4095.*mono16"):
        to_rgb(RawFrame(shifted, PIXEL_FORMATS["mono12"]))


@pytest.mark.parametrize(
    ("name", "shape", "says"),
    [
        ("bayerrg8", (5, 6), "both sides must be even, not 6 x 5"),
        ("bayerrg8", (6, 5), "both sides must be even"),
        ("bayerbg8", (2, 8), "at least 4 px"),
        ("yuv422_8", (3, 5, 2), "the width must be even, not 5 x 3"),
        ("nv12", (7, 4), "3 rows for 2"),
        ("i420", (3, 3), "both sides must be even"),
        ("mono8", (3, 3, 1), "shape"),
        ("rgb8", (3, 3), "shape"),
        ("rgb8", (3, 0, 3), "shape"),
        ("rgb8", (3,), "shape"),
    ],
)
def test_a_frame_that_its_format_cannot_have_is_refused(name: str, shape: tuple[int, ...], says: str) -> None:
    with pytest.raises(InvalidInputError, match=says):
        RawFrame(np.zeros(shape, np.uint8), PIXEL_FORMATS[name])


def test_samples_of_another_type_than_the_format_are_a_mistake_of_the_program() -> None:
    with pytest.raises(ValueError, match="uint8"):
        RawFrame(np.zeros((4, 4), np.uint8), PIXEL_FORMATS["mono12"])


def test_the_limits_hold_for_the_image_and_not_for_its_rows_of_samples() -> None:
    frame = SentImage(RawFrame(np.zeros((15, 10), np.uint8), PIXEL_FORMATS["nv12"]))
    assert open_image(frame, ImageLimits(max_pixels=100)).size == (10, 10)
    with pytest.raises(ImageTooLargeError, match="10 x 10 pixels"):
        open_image(frame, ImageLimits(max_pixels=99))
