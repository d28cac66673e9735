"""A TIFF that contains JPEGs costs no more than its size justifies."""

from __future__ import annotations

import io
import struct

import pytest
from PIL import Image

from patchserve_server.domain.errors import UndecodableImageError
from patchserve_server.imaging import ImageLimits, decode_image

LIMITS = ImageLimits(max_pixels=1_000_000)
SIDE_PX = 64
SCAN = b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00"


def jpeg(*, progressive: bool = False) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (SIDE_PX, SIDE_PX), "teal").save(file, "JPEG", progressive=progressive)
    return file.getvalue()


def with_sides(data: bytes, width: int, height: int) -> bytes:
    frame = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    return data[: frame + 5] + struct.pack(">HH", height, width) + data[frame + 9 :]


def tiff_of(strip: bytes, *, count: int = 1, tables_bytes: int = 0) -> bytes:
    """A TIFF with one strip, which it names `count` times."""
    start = 4096
    values = [
        (256, 3, 1, SIDE_PX), (257, 3, 1, SIDE_PX * count), (258, 3, 1, 8), (259, 3, 1, 7), (262, 3, 1, 6),
        (273, 4, count, start if count == 1 else 1024), (277, 3, 1, 3), (278, 3, 1, SIDE_PX),
        (279, 4, count, len(strip) if count == 1 else 2048),
        *([(347, 7, tables_bytes, start)] if tables_bytes else []),
    ]  # fmt: skip
    entries = b"".join(struct.pack("<HHLL", *value) for value in values)
    directory = struct.pack("<2sHLH", b"II", 42, 8, len(values)) + entries + bytes(4)
    offsets, sizes = struct.pack("<L", start) * count, struct.pack("<L", len(strip)) * count
    return directory.ljust(1024, b"\0") + offsets.ljust(1024, b"\0") + sizes.ljust(start - 2048, b"\0") + strip


def test_a_strip_that_is_whole_is_decoded() -> None:
    assert decode_image(tiff_of(jpeg()), LIMITS).size == (SIDE_PX, SIDE_PX)


def test_a_strip_that_fills_its_last_block_is_decoded() -> None:
    shorter = tiff_of(jpeg()).replace(struct.pack("<HHLL", 257, 3, 1, SIDE_PX), struct.pack("<HHLL", 257, 3, 1, 60))
    assert decode_image(shorter, LIMITS).size == (SIDE_PX, 60)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("sides", [(65_500, 65_500), (SIDE_PX + 1, SIDE_PX), (SIDE_PX, SIDE_PX + 17)])
def test_a_strip_with_more_pixels_than_the_tiff_is_refused_before_it_is_decoded(
    sides: tuple[int, int], *, progressive: bool
) -> None:
    with pytest.raises(UndecodableImageError, match="more pixels"):
        decode_image(tiff_of(with_sides(jpeg(progressive=progressive), *sides)), LIMITS)


def test_a_strip_with_thousands_of_scans_is_refused() -> None:
    with pytest.raises(UndecodableImageError, match="too many scans"):
        decode_image(tiff_of(jpeg(progressive=True) + SCAN * 5000), LIMITS)


def test_strips_that_overlap_are_refused() -> None:
    with pytest.raises(UndecodableImageError, match="overlap"):
        decode_image(tiff_of(jpeg() + bytes(2_000), count=100), LIMITS)


def test_tables_larger_than_any_jpeg_has_are_refused() -> None:
    with pytest.raises(UndecodableImageError, match="tables"):
        decode_image(tiff_of(jpeg() + bytes(100_000), tables_bytes=100_000), LIMITS)
