"""Any bytes give an image within the limits or a clear error, in bounded time and memory."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from fakes.deep_images import png16, png_chunk, tiff16
from fakes.images import encoded
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from patchserve_server.domain.errors import ImageTooLargeError, InvalidImageError
from patchserve_server.imaging import ImageLimits, decode_image

LIMITS = ImageLimits(max_pixels=1_000_000)
KINDS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")


def noise(kind: str, side_px: int = 24, **options: object) -> bytes:
    pixels = np.random.default_rng(1).integers(0, 256, (side_px, side_px, 3), dtype=np.uint8)
    return encoded(Image.fromarray(pixels), kind, **options)


def decode_rgb(data: bytes, limits: ImageLimits) -> np.ndarray:
    return np.asarray(decode_image(data, limits))


def decodes_or_refuses(data: bytes, white_level: int | None = None) -> None:
    with suppress(InvalidImageError):
        decoded = np.asarray(decode_image(data, LIMITS, white_level))
        assert decoded.dtype == np.uint8
        assert decoded.shape[2:] == (3,)
        assert decoded.size <= 3 * LIMITS.max_pixels


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + b"".join(chunks)
        + chunk(b"IDAT", zlib.compress(b"\0" * 10))
        + chunk(b"IEND", b"")
    )


def tiff(*entries: tuple[int, int, int, int], after: bytes = b"") -> bytes:
    directory = b"".join(struct.pack("<HHLL", *entry) for entry in entries)
    return struct.pack("<2sHLH", b"II", 42, 8, len(entries)) + directory + struct.pack("<L", 0) + after


def gray_tiff(*entries: tuple[int, int, int, int], after: bytes = b"") -> bytes:
    """16 x 16 pixels, unless the entries say otherwise."""
    common = [(256, 4, 1, 16), (257, 4, 1, 16), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1)]
    by_tag = {entry[0]: entry for entry in (*common, *entries)}
    return tiff(*sorted(by_tag.values()), after=after)


def jpeg_with(segments: bytes) -> bytes:
    return b"\xff\xd8" + segments + noise("JPEG")[2:]


def many_scans() -> bytes:
    data = noise("JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * 5000 + b"\xff\xd9"


def empty_scans(number: int) -> bytes:
    """Baseline with one component per scan: each scan is a pass over the image, but none has any data."""
    data = noise("JPEG", 1000)
    scan = b"\xff\xda\0\x08\1" + data[data.index(b"\xff\xc0") + 10 :][:1] + b"\0\0\x3f\0"
    return data[: data.index(b"\xff\xda")] + scan * number + b"\xff\xd9"


def nested_tiff(entry: tuple[int, int, int, int], *, whole: bool) -> bytes:
    """A valid image with an EXIF directory of one entry at the end; a cut directory claims to have more."""
    values = bytes(range(1, 9)) * 3_000_000
    end = 8 + 2 + 8 * 12 + 4 + len(values)
    data = gray_tiff((273, 4, 1, 8), (34665, 4, 1, end), after=values)
    return data + struct.pack("<H", 1 if whole else 9) + struct.pack("<HHLL", *entry) + bytes(4 * whole)


def many_tile_sides(number: int) -> bytes:
    """A BigTIFF, which may have so many tags. The product of all sides is a number of millions of bits."""
    return b"II" + struct.pack("<HHHQQ", 43, 8, 0, 16, number) + struct.pack("<HHQQ", 322, 4, 1, 2**32 - 1) * number


def pages(number: int) -> bytes:
    """A valid image on each page."""
    entries = sorted([(256, 4, 1, 4), (257, 4, 1, 4), (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, 0), (279, 4, 1, 16)])
    size = 2 + 12 * len(entries) + 4
    page = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHLL", *entry) for entry in entries)
    chain = (page + struct.pack("<L", (8 + size * (at + 1)) * (at + 1 < number)) for at in range(number))
    return struct.pack("<2sHL", b"II", 42, 8) + b"".join(chain)


def ambiguous_tiff() -> bytes:
    """A harmless BigTIFF, as its header says; but Pillow reads it as a classic TIFF with 2,000,000 strips."""
    short = {258: 8, 259: 1, 262: 1, 277: 1}
    entries = [(256, 4, 1, 16), (257, 4, 1, 16), *((tag, 3, 1, value << 16) for tag, value in short.items())]
    entries = sorted([*entries, (273, 1, 2_000_000, 8), (278, 4, 1, 1)])
    classic = struct.pack(">H", len(entries)) + b"".join(struct.pack(">HHLL", *entry) for entry in entries) + bytes(4)
    big = struct.pack(">QHHQQQ", 1, 256, 4, 1, 0, 0)
    return b"MM\0\x2b" + struct.pack(">LQ", 16, 16 + len(classic)) + classic + big + bytes(2_000_000)


CATALOG: dict[str, Callable[[], bytes]] = {
    "png with huge sides": lambda: png(65535, 65535),
    "png with the largest sides": lambda: png(2**31 - 1, 2**31 - 1),
    "png with one endless row": lambda: png(900_000, 1),
    "png without width": lambda: png(0, 10),
    "png with a text bomb": lambda: png(8, 8, text_bomb(b"zTXt", b"a\0\0")),
    "png with a profile bomb": lambda: png(8, 8, text_bomb(b"iCCP", b"a\0\0")),
    "png with a million chunks": lambda: png(
        8, 8, (bytes(4) + b"prVt" + struct.pack(">I", zlib.crc32(b"prVt"))) * 1_000_000
    ),
    "png with 100,000 notes of significant bits": lambda: png(8, 8, png_chunk(b"sBIT", b"\x0c") * 100_000),
    "png of 16 bits with a note of 10 MB": lambda: png16(
        np.zeros((8, 8, 3), np.uint16), significant=b"\x0c" * 10_000_000
    ),
    "tiff of 16 bits with millions of largest values": lambda: gray_tiff(
        (273, 4, 1, 8), (258, 3, 1, 16), (281, 3, 4_000_000, 8), after=b"\1" * 8_000_000
    ),
    "tiff with a text as its largest value": lambda: gray_tiff(
        (273, 4, 1, 0), (258, 3, 1, 16), (281, 2, 4, 0x41424344)
    ),
    "jpeg with a million segments": lambda: jpeg_with(b"\xff\xfe\0\2" * 1_000_000),
    "jpeg with 100,000 EXIF segments": lambda: jpeg_with((b"\xff\xe1\0\x58Exif\0\0" + b"x" * 80) * 100_000),
    "jpeg with 5,000 scans": many_scans,
    "jpeg with scans that hold nothing": lambda: empty_scans(5000),
    "jpeg with EXIF segments behind junk": lambda: jpeg_with(
        b"\xff\xfe\0\2\0" + (b"\xff\xe1\0\x58Exif\0\0" + b"x" * 80) * 60_000
    ),
    "jpeg with junk between segments": lambda: jpeg_with(b"\xff\xfe\0\2" + b"\0" * 4_000_000),
    "jpeg of markers only": lambda: b"\xff\xd8" + b"\xff" * 100_000,
    "tiff with a directory that points to itself": lambda: struct.pack("<2sHLHL", b"II", 42, 8, 0, 8),
    "tiff with 500,000 directories in a chain": lambda: (
        struct.pack("<2sHL", b"II", 42, 8)
        + b"".join(struct.pack("<HL", 0, 14 + 6 * number) for number in range(500_000))
    ),
    "tiff with an image on each of 20,000 pages": lambda: pages(20_000),
    "tiff with an EXIF directory in its own EXIF directory": lambda: nested_tiff((0x8769, 4, 1, 8), whole=True),
    "tiff with a directory outside": lambda: struct.pack("<2sHL", b"II", 42, 2**31),
    "tiff with a million strips": lambda: gray_tiff((273, 3, 4_000_000, 8), (278, 4, 1, 1), after=b"\0" * 8_000_000),
    "tiff with huge tiles": lambda: gray_tiff((322, 4, 1, 32768), (323, 4, 1, 32768), (324, 4, 1, 8), (325, 4, 1, 9)),
    "tiff with 200,000 tile sides": lambda: many_tile_sides(200_000),
    "tiff with strips outside": lambda: gray_tiff((273, 4, 1, 2**31), (278, 4, 1, 16), (279, 4, 1, 256)),
    "tiff that lies about its rows": lambda: gray_tiff((273, 4, 1, 0), (278, 4, 1, 2**27), (279, 4, 1, 40)),
    "tiff with millions of bit depths": lambda: gray_tiff(
        (273, 4, 1, 8), (258, 3, 4_000_000, 8), after=b"\1" * 8_000_000
    ),
    "tiff with millions of EXIF rationals": lambda: nested_tiff((0x9999, 5, 3_000_000, 8), whole=True),
    "tiff with EXIF rationals in a cut directory": lambda: nested_tiff((0x9999, 5, 3_000_000, 8), whole=False),
    "tiff that two readers read differently": ambiguous_tiff,
    "big tiff with a million tags": lambda: b"II" + struct.pack("<HHHQQ", 43, 8, 0, 16, 2**40) + b"\0" * 1000,
    "bmp with run lengths": lambda: bmp(65535, 900, compression=1),
    "bmp upside down": lambda: bmp(4, -4, compression=0),
    "bmp with a huge height": lambda: bmp(4, 2**31 - 1, compression=0),
    "bmp with a negative width": lambda: bmp(-4, 4, compression=0),
    "webp with a huge canvas": lambda: (
        b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\x02\0\0\0\xfe\x3f\0\xfe\x27\0ANIM\6\0\0\0" + b"\0" * 6
    ),
    "jpeg with a million comments between its scans": lambda: between_scans(b"\xff\xfe\0\2" * 1_000_000),
    "jpeg with 20 MB of fill bytes between its scans": lambda: between_scans(b"\xff" * 20_000_000),
    "jpeg with 20 MB of fill bytes before a stuffed one": lambda: between_scans(b"\xff" * 20_000_000 + b"\0"),
    "gif": lambda: b"GIF89a" + b"\0" * 100,
    "svg": lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "pdf": lambda: b"%PDF-1.7\n" + b"\0" * 100,
    "zip": lambda: b"PK\3\4" + b"\0" * 100,
    "postscript": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n",
    "jpeg and zip in one": lambda: noise("JPEG") + b"PK\3\4" + b"\0" * 1000,
    "zip and jpeg in one": lambda: b"PK\3\4" + noise("JPEG"),
    "one byte": lambda: b"\xff",
    "zeros": lambda: b"\0" * 1_000_000,
    "header of each": lambda: b"\xff\xd8\xff",
}


def between_scans(inserted: bytes) -> bytes:
    jpeg = encoded(Image.linear_gradient("L"), "JPEG", progressive=True)
    second = jpeg.rindex(b"\xff\xc4")  # tables before the last scan
    return jpeg[:second] + inserted + jpeg[second:]


def text_bomb(kind: bytes, start: bytes) -> bytes:
    return chunk(kind, start + zlib.compress(bytes(100_000_000), 9))


def bmp(width: int, height: int, *, compression: int) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, compression, 64, 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 14 + 40 + 1024 + 64, 0, 0, 14 + 40 + 1024) + header + bytes(1024) + bytes(64)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", CATALOG)
def test_each_file_of_the_catalog_is_decoded_or_refused_in_time(name: str) -> None:
    decodes_or_refuses(CATALOG[name]())


COSTLY = [
    "png with one endless row",
    "png with a million chunks",
    "jpeg with a million segments",
    "jpeg with 100,000 EXIF segments",
    "jpeg with EXIF segments behind junk",
    "jpeg with junk between segments",
    "jpeg with 5,000 scans",
    "jpeg with scans that hold nothing",
    "jpeg with a million comments between its scans",
    "tiff with a million strips",
    "tiff with huge tiles",
    "tiff with 200,000 tile sides",
    "tiff with millions of bit depths",
    "tiff with millions of EXIF rationals",
    "tiff with EXIF rationals in a cut directory",
    "tiff that two readers read differently",
    "bmp with run lengths",
]


@pytest.mark.parametrize("name", COSTLY)
def test_a_file_that_costs_too_much_is_refused_with_the_limit(name: str) -> None:
    """Pillow alone would accept most of these, after seconds to minutes or with gigabytes of memory."""
    with pytest.raises(InvalidImageError, match=r"at most|not supported"):
        decode_rgb(CATALOG[name](), LIMITS)


def test_the_whole_catalog_takes_less_than_100_mb() -> None:
    """In a process of its own, so that the peak of its memory is the decoder's."""
    program = (
        "import resource, sys; sys.path[:0] = sys.argv[1:]\n"
        "from hostile.test_hostile_images import CATALOG, decodes_or_refuses\n"
        "peak_kib = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "files = [make() for make in CATALOG.values()]\n"
        "before = peak_kib()\n"
        "[decodes_or_refuses(file) for file in files]\n"
        "print(peak_kib() - before)\n"
    )
    tests = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", program, tests], capture_output=True, text=True, timeout=120, check=True
    )
    assert int(done.stdout) < 100_000


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_cut_at_any_twentieth_is_decoded_or_refused(kind: str) -> None:
    data = noise(kind)
    for share in range(20):
        decodes_or_refuses(data[: len(data) * share // 20])


@settings(max_examples=400)
@given(
    kind=st.sampled_from(KINDS),
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=12),
    header_only=st.booleans(),
)
def test_changed_bytes_are_decoded_or_refused(kind: str, edits: list[tuple[float, int]], header_only: bool) -> None:
    data = bytearray(noise(kind))
    for place, value in edits:
        data[int(place * (min(64, len(data)) if header_only else len(data)))] = value
    decodes_or_refuses(bytes(data))


@settings(max_examples=200)
@given(kind=st.sampled_from(KINDS), tail=st.binary(max_size=300))
def test_a_valid_start_and_a_random_end_are_decoded_or_refused(kind: str, tail: bytes) -> None:
    decodes_or_refuses(noise(kind)[:40] + tail)


@settings(max_examples=200)
@given(exif=st.binary(max_size=200), kind=st.sampled_from(("JPEG", "PNG", "WEBP")))
def test_any_exif_data_is_decoded_or_refused(exif: bytes, kind: str) -> None:
    decodes_or_refuses(noise(kind, exif=b"Exif\0\0" + exif))


@pytest.mark.parametrize("size_px", [(1, 1), (1, 5000), (5000, 1), (16384, 1)])
def test_images_of_extreme_shapes_are_decoded(size_px: tuple[int, int]) -> None:
    for kind in ("PNG", "JPEG", "BMP", "TIFF"):
        assert decode_rgb(encoded(Image.new("RGB", size_px), kind), LIMITS).shape[1::-1] == size_px


@pytest.mark.parametrize("name", ["png with huge sides", "tiff with a million strips", "jpeg with 5,000 scans", "gif"])
def test_the_error_says_what_was_wrong(name: str) -> None:
    with pytest.raises(InvalidImageError) as caught:
        decode_rgb(CATALOG[name](), LIMITS)
    assert len(caught.value.message) > 20
    assert caught.value.message.endswith(".")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_file_with_16_bits_per_sample_is_decoded_or_refused(data: st.DataObject) -> None:
    values = np.random.default_rng(2).integers(0, 4096, (12, 9, 3), dtype=np.uint16)
    writers = (
        partial(png16, significant=b"\x0c\x0c\x0c"),
        partial(tiff16, more_tags={281: 4095}),
        partial(tiff16, order=">", planes=True),
        partial(tiff16, deflated=True, planes=True),
    )
    file = bytearray(data.draw(st.sampled_from(writers))(values))
    for _ in range(data.draw(st.integers(1, 6))):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    decodes_or_refuses(bytes(file), white_level=data.draw(st.sampled_from([None, 1, 4095])))


def test_the_second_pass_over_a_file_keeps_the_limits_of_the_first() -> None:
    data = png16(np.zeros((300, 400, 3), np.uint16))
    with pytest.raises(ImageTooLargeError):
        decode_image(data, ImageLimits(max_pixels=100_000), 4095)
