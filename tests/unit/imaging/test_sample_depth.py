"""Images of 10, 12, 14 and 16 bits per sample keep their levels, and white stays white."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial

import cv2
import numpy as np
import pytest
from fakes.deep_images import Samples, png16, png_chunk, tiff16
from fakes.images import card, encoded
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from PIL import Image

from patchserve_server.domain.errors import InvalidImageError, UndecodableImageError
from patchserve_server.domain.images import SentImage
from patchserve_server.domain.raw_frame import RawFrame
from patchserve_server.imaging import ImageLimits, decode_image, open_image

LIMITS = ImageLimits()
RAMP: Samples = np.arange(4096, dtype=np.uint16).reshape(64, 64)  # every level of 12 bits
COLORS: Samples = np.stack([RAMP, RAMP[::-1], RAMP.T], axis=-1)


def decoded(data: bytes, white_level: int | None = None) -> np.ndarray:
    return np.asarray(decode_image(data, LIMITS, white_level))


def levels(values: Samples, white: int) -> np.ndarray:
    return np.rint(values.clip(0, white) * (255 / white)).astype(np.uint8)


WRITERS: dict[str, Callable[[Samples], bytes]] = {
    "png": png16,
    "png, interlaced": partial(png16, interlaced=True),
    "png by opencv": lambda values: cv2.imencode(".png", values[..., ::-1] if values.ndim == 3 else values)[
        1
    ].tobytes(),
    "tiff": tiff16,
    "tiff, big-endian": lambda values: tiff16(values, order=">"),
    "tiff, deflated": lambda values: tiff16(values, deflated=True),
    "tiff, deflated, big-endian": lambda values: tiff16(values, deflated=True, order=">"),
    "tiff by opencv": lambda values: cv2.imencode(".tif", values[..., ::-1] if values.ndim == 3 else values)[
        1
    ].tobytes(),
}
COLOR_WRITERS: dict[str, Callable[[Samples], bytes]] = WRITERS | {
    "tiff, planes": lambda values: tiff16(values, planes=True),
    "tiff, planes, big-endian": lambda values: tiff16(values, planes=True, order=">"),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_every_level_of_12_bits_keeps_its_place_in_gray(writer: str) -> None:
    gray = decoded(WRITERS[writer](RAMP), 4095)
    assert (gray == gray[..., :1]).all()
    assert np.array_equal(gray[..., 0], levels(RAMP, 4095))
    assert (np.diff(gray[..., 0].ravel().astype(int)) >= 0).all()
    assert len(np.unique(gray)) == 256


@pytest.mark.parametrize("writer", COLOR_WRITERS)
@pytest.mark.parametrize("white", [4095, 65_535])
def test_every_level_keeps_its_place_in_color(writer: str, white: int) -> None:
    values = COLORS * np.uint16(1 if white == 4095 else 16)
    assert np.array_equal(decoded(COLOR_WRITERS[writer](values), white), levels(values, white))


@pytest.mark.parametrize("bits", [8, 9, 10, 12, 14, 15])
@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 3)])
def test_a_png_says_how_many_bits_are_significant(bits: int, shape: tuple[int, ...]) -> None:
    white = 2**bits - 1
    values = np.linspace(0, white, np.prod(shape)).astype(np.uint16).reshape(shape)
    said = bytes([bits] * (1 if len(shape) == 2 else 3))
    result = decoded(png16(values, significant=said))
    assert np.array_equal(result if len(shape) == 3 else result[..., 0], levels(values, white))
    assert result.max() == 255


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_significant_bits_that_were_scaled_to_16_are_not_scaled_again(bits: int) -> None:
    """As the definition of PNG wants it."""
    values = np.linspace(0, 2**bits - 1, 64).astype(np.uint16).reshape(8, 8)
    with_zeros: Samples = values * np.uint16(2 ** (16 - bits))
    repeated: Samples = with_zeros + values // np.uint16(2 ** (2 * bits - 16))
    for scaled in (with_zeros, repeated):
        result = decoded(png16(scaled, significant=bytes([bits])))[..., 0]
        assert np.array_equal(result, levels(scaled, 65_535))
        assert result.max() == 255


@pytest.mark.parametrize("said", [b"\x0c\x0c", b"\x00", b"\x11", b"\x07", b"\xff", b"", b"\x0c" * 1000])
def test_significant_bits_that_make_no_sense_are_ignored(said: bytes) -> None:
    data = png16(RAMP, png_chunk(b"sBIT", said))
    assert np.array_equal(decoded(data)[..., 0], levels(RAMP, 65_535))


def test_the_first_word_about_significant_bits_counts_and_only_before_the_pixels() -> None:
    twice = png16(RAMP, png_chunk(b"sBIT", b"\x0c"), significant=b"\x10")
    after = png16(RAMP).replace(png_chunk(b"IEND", b""), png_chunk(b"sBIT", b"\x0c") + png_chunk(b"IEND", b""))
    for data in (twice, after):
        assert np.array_equal(decoded(data)[..., 0], levels(RAMP, 65_535))


@pytest.mark.parametrize(("said", "white"), [(1023, 1023), (4095, 4095), (16_383, 16_383), (3000, 65_535), (0, 65_535)])
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_tiff_says_its_depth_with_the_largest_value_of_that_depth(said: int, white: int, order: str) -> None:
    values = (RAMP // 4).clip(0, 1023)
    data = tiff16(values, order=order, more_tags={281: said})
    assert np.array_equal(decoded(data)[..., 0], levels(values, white))


def test_a_tiff_with_brighter_values_than_it_says_has_16_bits() -> None:
    assert np.array_equal(decoded(tiff16(RAMP, more_tags={281: 1023}))[..., 0], levels(RAMP, 65_535))


def test_the_white_level_of_the_caller_comes_before_what_the_file_says() -> None:
    for data in (png16(RAMP, significant=b"\x0c"), tiff16(RAMP, more_tags={281: 4095})):
        assert np.array_equal(decoded(data, 2000)[..., 0], levels(RAMP, 2000))


@settings(max_examples=60, deadline=None)
@given(
    st_numpy.arrays(np.uint16, st.tuples(st.integers(1, 9), st.integers(1, 9))),
    st.integers(1, 65_535),
    st.sampled_from([png16, tiff16]),
)
def test_levels_rise_with_the_values_and_all_above_white_is_white(
    values: Samples, white: int, writer: Callable[[Samples], bytes]
) -> None:
    result = decoded(writer(values), white)[..., 0]
    order = np.argsort(values, axis=None)
    assert (np.diff(result.ravel()[order].astype(int)) >= 0).all()
    assert (result[values >= white] == 255).all()
    assert (result[values == 0] == 0).all()


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("writer", COLOR_WRITERS)
def test_a_picture_looks_the_same_in_8_bits_and_in_more(bits: int, writer: str) -> None:
    rgb = np.asarray(card(3))
    white = 2**bits - 1
    deep = np.rint(rgb * (white / 255)).astype(np.uint16)
    assert np.array_equal(decoded(COLOR_WRITERS[writer](deep), white), rgb)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG", "BMP", "WEBP"])
def test_a_white_level_changes_nothing_in_images_of_8_bits(kind: str) -> None:
    data = encoded(card(1), kind)
    assert np.array_equal(decoded(data, 4095), decoded(data))
    pixels = np.asarray(card(1))
    assert np.array_equal(np.asarray(open_image(SentImage(RawFrame(pixels), 100), LIMITS)), pixels)


def test_alpha_has_the_scale_of_the_colors_or_its_full_one() -> None:
    gray = np.full((2, 3), 1000, np.uint16)
    for opaque in (4095, 65_535):
        alpha = np.array([[0, opaque, opaque]] * 2, np.uint16)
        with_alpha = (np.dstack([gray, alpha]), np.dstack([gray, gray, gray, alpha]))
        for data in (*map(png16, with_alpha), tiff16(with_alpha[1], extra=2)):
            assert decoded(data, 4095)[0].tolist() == [[255] * 3, [62] * 3, [62] * 3]


def test_a_fourth_sample_without_a_meaning_is_ignored() -> None:
    values = np.dstack([COLORS, np.zeros_like(RAMP)])
    assert np.array_equal(decoded(tiff16(values, extra=0), 4095), levels(COLORS, 4095))


def test_a_transparent_color_is_compared_with_all_its_bits() -> None:
    row: Samples = np.array([[[10, 20, 30], [11, 20, 30]]], np.uint16)
    data = png16(row, png_chunk(b"tRNS", b"\0\x0a\0\x14\0\x1e"))
    assert decoded(data, 255)[0].tolist() == [[255, 255, 255], [11, 20, 30]]


@pytest.mark.parametrize("shape", [(64, 64), (64, 64, 3)])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_orientation_holds_for_deep_images(shape: tuple[int, ...], kind: str) -> None:
    values = RAMP if len(shape) == 2 else COLORS
    if kind == "TIFF":
        data = tiff16(values, more_tags={274: 6})
    else:
        exif = Image.Exif()
        exif[0x0112] = 6
        data = png16(values, png_chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")))
    result = decoded(data, 4095)
    assert np.array_equal(result if len(shape) == 3 else result[..., 0], np.rot90(levels(values, 4095), -1))


@pytest.mark.parametrize(
    "write",
    [partial(tiff16, extra=1), partial(tiff16, planes=True, deflated=True, extra=2)],
    ids=["premultiplied", "planes"],
)
def test_a_layout_without_low_bytes_is_read_at_its_full_scale_only(write: Callable[[Samples], bytes]) -> None:
    values = np.dstack([COLORS * np.uint16(16), np.full_like(RAMP, 65_535)])
    assert np.abs(decoded(write(values)).astype(int) - levels(values[..., :3], 65_535)).max() <= 1
    with pytest.raises(UndecodableImageError, match="4095"):
        decoded(write(values), 4095)


@pytest.mark.parametrize("writer", COLOR_WRITERS)
def test_a_deep_image_without_its_end_is_refused(writer: str) -> None:
    noise = np.random.default_rng(0).integers(1, 4096, (40, 40, 3), dtype=np.uint16)
    data = COLOR_WRITERS[writer](noise)
    with pytest.raises(InvalidImageError):
        decoded(data[: len(data) // 2], 4095)


def test_a_tiff_of_another_depth_is_refused_and_the_error_says_what_is_supported() -> None:
    buffer = io.BytesIO(tiff16(RAMP))
    data = buffer.getvalue().replace(b"\x02\x01\x03\0\x01\0\0\0\x10\0", b"\x02\x01\x03\0\x01\0\0\0\x0e\0")
    with pytest.raises(UndecodableImageError, match="8 or 16 bits per sample"):
        decoded(data)
