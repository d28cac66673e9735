"""A device gets no file that the CPU would refuse, or would read otherwise. Whoever checks, the words are the same."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import pytest
from fakes.images import encoded
from hostile.test_hostile_images import CATALOG, LIMITS
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from patchserve_server.domain.errors import InvalidImageError
from patchserve_server.domain.images import SentImage
from patchserve_server.domain.jpeg_file import JpegFile
from patchserve_server.imaging import decode_image, device_file
from patchserve_server.imaging.decode import upright

T = TypeVar("T")
IMAGE = Image.fromarray(np.random.default_rng(1).integers(0, 256, (24, 24, 3), dtype=np.uint8))
FILES = [
    encoded(IMAGE, exif=Image.Exif()),
    encoded(IMAGE, progressive=True, comment=b"hello"),
    encoded(IMAGE.convert("L"), restart_marker_blocks=2),
    encoded(IMAGE, subsampling=0, icc_profile=b"x" * 70_000),
]


def outcome_of(work: Callable[[], T]) -> T | tuple[type[InvalidImageError], str]:
    """What it returns, or the kind and the words of its error."""
    try:
        return work()
    except InvalidImageError as error:
        return type(error), str(error)


def assert_same(data: bytes) -> None:
    """What the CPU refuses is refused in the same words; what goes to a device has the pixels of the CPU."""
    file = outcome_of(lambda: device_file(SentImage(data), LIMITS))
    if file is None:  # the CPU decides
        return
    decoded = outcome_of(lambda: decode_image(data, LIMITS))
    if not isinstance(file, JpegFile) or not isinstance(decoded, Image.Image):
        assert file == decoded
        return
    pixels = np.asarray(decoded)
    image = Image.open(io.BytesIO(file.data)).convert("RGB")
    np.testing.assert_array_equal(np.asarray(upright(image, file.orientation)), pixels)


@pytest.mark.parametrize("name", [name for name in CATALOG if "jpeg" in name or name in ("one byte", "header of each")])
def test_each_jpeg_of_the_catalog(name: str) -> None:
    assert_same(CATALOG[name]())


def cut(data: bytes) -> Iterator[bytes]:
    for share in range(40):
        yield data[: len(data) * share // 40]


@pytest.mark.parametrize("number", range(len(FILES)))
def test_a_file_that_is_cut_anywhere(number: int) -> None:
    for data in cut(FILES[number]):
        assert_same(data)


@settings(max_examples=500, deadline=None)
@given(
    number=st.integers(0, len(FILES) - 1),
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6),
    header_only=st.booleans(),
)
def test_a_file_with_changed_bytes(number: int, edits: list[tuple[float, int]], header_only: bool) -> None:
    data = bytearray(FILES[number])
    for place, value in edits:
        data[int(place * (min(700, len(data)) if header_only else len(data)))] = value
    assert_same(bytes(data))


markers = st.integers(1, 254).map(lambda marker: bytes([0xFF, marker, 0, 2]))


@settings(max_examples=200, deadline=None)
@given(
    number=st.integers(0, len(FILES) - 1),
    place=st.floats(0, 1, exclude_max=True),
    inserted=st.one_of(
        st.binary(max_size=8), st.builds(lambda marker: bytes([0xFF, marker, 0, 2]), st.integers(1, 254))
    ),
    removed=st.integers(0, 8),
)
def test_a_file_with_bytes_too_many_or_too_few(number: int, place: float, inserted: bytes, removed: int) -> None:
    data = FILES[number]
    at = int(place * len(data))
    assert_same(data[:at] + inserted + data[at + removed :])


@settings(max_examples=100, deadline=None)
@given(exif=st.binary(max_size=200))
def test_any_exif_data(exif: bytes) -> None:
    assert_same(encoded(IMAGE, exif=b"Exif\0\0" + exif))
