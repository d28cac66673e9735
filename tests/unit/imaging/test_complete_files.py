"""A file without a part of its pixels is refused in every format, and no complete file is."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from fakes.images import encoded
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from patchserve_server.domain.errors import UndecodableImageError
from patchserve_server.imaging import ImageLimits, decode_image

LIMITS = ImageLimits()
END = b"\xff\xd9"
JPEG_OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "quality": st.integers(1, 100),
        "progressive": st.booleans(),
        "optimize": st.booleans(),
        "subsampling": st.sampled_from(["4:4:4", "4:2:2", "4:2:0"]),
        "restart_marker_blocks": st.integers(1, 20),
        "restart_marker_rows": st.integers(1, 3),
        "exif": st.just(b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0" + encoded(Image.new("RGB", (8, 8)))),
    },
)


def drawn(seed: int, size_px: tuple[int, int], mode: str = "RGB") -> Image.Image:
    """Noise at the right, blocks of one color at the left."""
    rng = np.random.default_rng(seed)
    width, height = size_px
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    pixels[:, : width // 2] = rng.integers(0, 256, 3)
    return Image.fromarray(pixels).convert(mode)


def decode_rgb(data: bytes) -> np.ndarray:
    return np.asarray(decode_image(data, LIMITS))


def pillow_rgb(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def scans(jpeg: bytes) -> list[range]:
    """The places of the pixel data: one part in a baseline file, several in a progressive one."""
    found, start = [], 2
    while jpeg[start : start + 2] != END:
        is_scan = jpeg[start + 1] == 0xDA
        end = start + 2 + int.from_bytes(jpeg[start + 2 : start + 4], "big")
        start = end
        if is_scan:
            while jpeg[end] != 0xFF or jpeg[end + 1] == 0 or jpeg[end + 1] in range(0xD0, 0xD8):
                end += 1
            found.append(range(start, end))
            start = end
    return found


@settings(max_examples=150, deadline=None)
@given(
    image=st.builds(
        drawn,
        st.integers(0, 99),
        st.tuples(st.integers(8, 90), st.integers(8, 90)),
        st.sampled_from(["RGB", "L", "CMYK"]),
    ),
    options=JPEG_OPTIONS,
    tail=st.sampled_from([b"", b"\0" * 9, END, b"\xff\xd8\xff", encoded(Image.new("L", (9, 9)))]),
    share=st.floats(0, 1, exclude_max=True),
)
def test_a_jpeg_has_the_pixels_of_pillow_and_is_refused_with_any_cut(
    image: Image.Image, options: dict[str, object], tail: bytes, share: float
) -> None:
    if image.mode == "CMYK":  # Pillow subsamples one of its four components, which is unknown to others
        options = {**options, "subsampling": "4:4:4"}
    jpeg = encoded(image, "JPEG", **options)
    assert np.array_equal(decode_rgb(jpeg + tail), pillow_rgb(jpeg))
    places = [place for scan in scans(jpeg) for place in scan]
    cut = jpeg[: places[int(len(places) * share)]]
    for damaged in (cut, cut + END, cut + END + tail):
        with pytest.raises(UndecodableImageError, match=r"truncated|damaged"):
            decode_rgb(damaged)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_is_refused_at_every_single_cut_of_its_scans(progressive: bool) -> None:
    jpeg = encoded(drawn(0, (40, 24)), "JPEG", progressive=progressive, quality=60)
    assert len(scans(jpeg)) == (10 if progressive else 1)
    for end in (place for scan in scans(jpeg) for place in scan):
        with pytest.raises(UndecodableImageError):
            decode_rgb(jpeg[:end] + END)


@pytest.mark.parametrize(
    "flag", [cv2.IMWRITE_JPEG_PROGRESSIVE, cv2.IMWRITE_JPEG_OPTIMIZE, cv2.IMWRITE_JPEG_RST_INTERVAL]
)
@pytest.mark.parametrize("value", [0, 1, 7])
@pytest.mark.parametrize("sampling", [0x111111, 0x211111, 0x221111, 0x411111, 0x121111])
def test_jpegs_of_opencv_are_decoded_and_refused_with_a_cut(flag: int, value: int, sampling: int) -> None:
    options = [flag, value, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    _, file = cv2.imencode(".jpg", np.asarray(drawn(3, (70, 50))), options)
    jpeg = file.tobytes()
    assert np.array_equal(decode_rgb(jpeg), pillow_rgb(jpeg))
    with pytest.raises(UndecodableImageError):
        decode_rgb(jpeg[: len(jpeg) * 2 // 3] + END)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_jpeg_whose_missing_part_is_filled_with_zeros_is_refused(mode: str, progressive: bool) -> None:
    jpeg = encoded(drawn(0, (120, 90), mode), "JPEG", progressive=progressive)
    for end in range(scans(jpeg)[0].start, len(jpeg) - 100, 41):
        for zeros in (len(jpeg) - end, end, 5000):
            with pytest.raises(UndecodableImageError):
                decode_rgb(jpeg[:end] + bytes(zeros) + END)


def test_a_progressive_jpeg_without_its_last_scans_is_refused() -> None:
    jpeg = encoded(drawn(0, (60, 40)), "JPEG", progressive=True)
    for scan in scans(jpeg)[:-1]:
        with pytest.raises(UndecodableImageError, match="lacks some of its scans"):
            decode_rgb(jpeg[: scan.stop] + END)


def test_a_jpeg_whose_header_claims_more_pixels_is_refused() -> None:
    jpeg = encoded(drawn(0, (64, 64)), "JPEG")
    frame = jpeg.index(b"\xff\xc0") + 5
    for height, width in ((8000, 8000), (80, 64), (64, 80)):
        with pytest.raises(UndecodableImageError, match="truncated"):
            decode_rgb(jpeg[:frame] + struct.pack(">HH", height, width) + jpeg[frame + 4 :])


def test_a_jpeg_without_a_part_of_its_middle_is_refused() -> None:
    for options in ({}, {"optimize": True}, {"restart_marker_rows": 1}):
        jpeg = encoded(drawn(0, (120, 90)), "JPEG", **options)
        for middle in range(scans(jpeg)[0].start, len(jpeg) - 800, 97):
            with pytest.raises(UndecodableImageError):
                decode_rgb(jpeg[:middle] + jpeg[middle + 700 :])


def with_preview(jpeg: bytes) -> bytes:
    body = b"Exif\0\0" + b"II*\0\x08\0\0\0\0\0" + bytes(4) + encoded(drawn(2, (32, 24)))
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


UNUSUAL: dict[str, Callable[[bytes], bytes]] = {
    "fill bytes before the end": lambda jpeg: jpeg[:-2] + b"\xff" * 5 + END,
    "fill bytes between segments": lambda jpeg: jpeg[:2] + b"\xff" * 5 + jpeg[2:],
    "a comment": lambda jpeg: jpeg[:2] + b"\xff\xfe\0\6text" + jpeg[2:],
    "no JFIF header": lambda jpeg: jpeg[:2] + jpeg[20:],
    "a second image": lambda jpeg: jpeg + jpeg,
    "half of a second image": lambda jpeg: jpeg + jpeg[: len(jpeg) // 2],
    "a preview in the EXIF data": with_preview,
}
ODD: dict[str, Callable[[bytes], bytes]] = {  # libjpeg warns
    "zeros before the end, as some webcams write": lambda jpeg: jpeg[:-2] + b"\0" * 5 + END,
    "junk in the header": lambda jpeg: jpeg[:20] + b"\0" * 5 + jpeg[20:],
    "another version of JFIF": lambda jpeg: jpeg[:11] + b"\3" + jpeg[12:],
    "a damaged color profile": lambda jpeg: jpeg[:2] + b"\xff\xe2\0\x14ICC_PROFILE\0\1\5abcd" + jpeg[2:],
}


@pytest.mark.parametrize("name", [*UNUSUAL, *ODD])
@pytest.mark.parametrize("progressive", [False, True])
def test_an_unusual_but_complete_jpeg_is_decoded(name: str, progressive: bool) -> None:
    jpeg = encoded(drawn(1, (50, 40)), "JPEG", progressive=progressive)
    assert np.array_equal(decode_rgb((UNUSUAL | ODD)[name](jpeg)), pillow_rgb(jpeg))


@pytest.mark.parametrize("name", UNUSUAL)
@pytest.mark.parametrize("progressive", [False, True])
def test_an_unusual_jpeg_with_a_cut_is_refused(name: str, progressive: bool) -> None:
    jpeg = encoded(drawn(1, (50, 40)), "JPEG", progressive=progressive)
    with pytest.raises(UndecodableImageError):
        decode_rgb(UNUSUAL[name](jpeg[: scans(jpeg)[-1][-9]] + END))


def test_the_first_image_of_a_multi_picture_file_is_decoded() -> None:
    images = [drawn(seed, (40, 30)) for seed in range(2)]
    file = encoded(images[0], "MPO", save_all=True, append_images=images[1:])
    assert Image.open(io.BytesIO(file)).format == "MPO"
    assert np.array_equal(decode_rgb(file), pillow_rgb(encoded(images[0], "JPEG")))


def test_a_jpeg_of_a_layout_that_turbojpeg_does_not_know_is_decoded() -> None:
    jpeg = encoded(drawn(0, (64, 64), "CMYK"), "JPEG", subsampling="4:2:2")  # only the cyan is subsampled
    assert np.array_equal(decode_rgb(jpeg), pillow_rgb(jpeg))


OTHER_FILES = [
    ("PNG", {}),
    ("BMP", {}),
    ("WEBP", {}),
    ("WEBP", {"lossless": True}),
    *[
        ("TIFF", {"compression": kind})
        for kind in (None, "tiff_lzw", "tiff_deflate", "packbits", "jpeg", "zstd", "lzma")
    ],
]


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "1"])
@pytest.mark.parametrize(("kind", "options"), OTHER_FILES)
def test_a_file_cut_anywhere_is_refused_or_has_all_its_pixels(kind: str, options: dict[str, object], mode: str) -> None:
    if options.get("compression") == "jpeg" and mode in ("P", "1"):
        pytest.skip("libtiff does not write it")
    file = encoded(drawn(0, (30, 20), mode), kind, **options)
    whole = decode_rgb(file)
    refused = 0
    for end in sorted({*range(1, len(file), max(1, len(file) // 150)), *range(len(file) - 30, len(file))}):
        try:
            pixels = decode_rgb(file[:end])
        except UndecodableImageError:
            refused += 1
        else:
            assert np.array_equal(pixels, whole), end
    assert refused > 100


def png(width: int, height: int, pixel_data: bytes, *, interlaced: int = 0) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, interlaced)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixel_data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


@pytest.mark.parametrize("level", [0, 7])
@pytest.mark.parametrize("missing", [1, 2, 5, 19])
def test_a_png_with_fewer_rows_than_its_header_says_is_refused(level: int, missing: int) -> None:
    row = b"\0" + bytes([level]) * 30
    assert decode_rgb(png(10, 20, row * 20)).shape == (20, 10, 3)
    with pytest.raises(UndecodableImageError, match="truncated"):
        decode_rgb(png(10, 20, row * (20 - missing)))


@pytest.mark.parametrize("size_px", [(10, 20), (10, 21), (1, 1), (1, 9), (9, 1), (3, 2)])
def test_a_black_png_is_complete_interlaced_or_not(size_px: tuple[int, int]) -> None:
    width, height = size_px
    assert not decode_rgb(png(width, height, (b"\0" + bytes(3 * width)) * height)).any()
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    sizes = [(len(range(x, width, right)), len(range(y, height, down))) for x, y, right, down in passes]
    rows = [b"\0" + bytes(3 * columns) for columns, count in sizes if columns for _ in range(count)]
    assert not decode_rgb(png(width, height, b"".join(rows), interlaced=1)).any()
    if len(rows) > 1:
        with pytest.raises(UndecodableImageError):
            decode_rgb(png(width, height, b"".join(rows[:-1]), interlaced=1))


def test_a_png_with_any_bit_of_its_pixel_data_flipped_is_refused() -> None:
    file = encoded(drawn(0, (12, 9)), "PNG")
    start = file.index(b"IDAT") + 4
    end = start + int.from_bytes(file[start - 8 : start - 4], "big") + 4
    for place in range(start, end):
        damaged = bytearray(file)
        damaged[place] ^= 1 << place % 8
        with pytest.raises(UndecodableImageError):
            decode_rgb(bytes(damaged))


def tiff_directory(file: bytes | bytearray) -> dict[int, int]:
    """Where each tag's entry is."""
    (start,) = struct.unpack_from("<L", file, 4)
    (count,) = struct.unpack_from("<H", file, start)
    places = [start + 2 + 12 * index for index in range(count)]
    return {struct.unpack_from("<H", file, place)[0]: place for place in places}


def test_a_jpeg_in_a_tiff_is_refused_if_it_is_cut_or_too_small() -> None:
    file = bytearray(encoded(drawn(0, (64, 64)), "TIFF", compression="jpeg"))
    tags = tiff_directory(file)
    taller = bytearray(file)
    for tag in (257, 278):  # height, rows in a strip
        taller[tags[tag] + 2 : tags[tag] + 12] = struct.pack("<HLHH", 3, 1, 80, 0)
    with pytest.raises(UndecodableImageError, match="truncated"):
        decode_rgb(bytes(taller))
    offset, size = (struct.unpack_from("<L", file, tags[tag] + 8)[0] for tag in (273, 279))
    file[offset + size // 2 : offset + size // 2 + 2] = END
    with pytest.raises(UndecodableImageError, match="truncated"):
        decode_rgb(bytes(file))
