"""Every format and mode becomes upright RGB; sizes are checked before pixels."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from patchserve_server.domain.errors import EmptyImageError, ImageTooLargeError, UndecodableImageError
from patchserve_server.imaging import ImageLimits, decode
from patchserve_server.imaging.pil_image import pixels_of

LIMITS = ImageLimits()
COLORS = np.kron(np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 0]]], np.uint8), np.ones((8, 8, 1)))


def image() -> Image.Image:
    """16 x 16: red, green over blue, yellow."""
    return Image.fromarray(COLORS.astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decode_rgb(data: bytes, limits: ImageLimits) -> np.ndarray:
    return np.asarray(decode(data, limits))


@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("TIFF", {"compression": "tiff_deflate"}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("WEBP", {"quality": 90}, 90),
        ("JPEG", {"quality": 95, "subsampling": 0}, 12),
        ("JPEG", {"quality": 95, "subsampling": 0, "progressive": True}, 12),
    ],
)
def test_formats(kind: str, options: dict[str, object], tolerance: int) -> None:
    decoded = decode_rgb(encoded(image(), kind, **options), LIMITS)
    assert decoded.shape == (16, 16, 3)
    assert decoded.dtype == np.uint8
    assert decoded.flags.c_contiguous
    difference = np.abs(decoded.astype(int) - COLORS)
    assert difference[2:6, 2:6].max() <= tolerance


@pytest.mark.parametrize("mode", ["L", "LA", "1", "P", "RGBA", "CMYK", "YCbCr", "LAB"])
def test_modes_become_rgb(mode: str) -> None:
    source = image().convert(mode)
    kind = "TIFF" if mode in ("CMYK", "YCbCr", "LAB") else "PNG"
    decoded = decode_rgb(encoded(source, kind), LIMITS)
    assert decoded.shape == (16, 16, 3)
    assert np.abs(decoded.astype(int) - np.asarray(source.convert("RGB"))).max() <= 2


def test_a_cmyk_jpeg_is_not_inverted() -> None:
    decoded = decode_rgb(encoded(image().convert("CMYK"), "JPEG", quality=95), LIMITS)
    assert decoded[3, 3, 0] > 200
    assert decoded[3, 3, 2] < 90


def test_16_bit_gray_is_scaled_not_clipped() -> None:
    levels = np.array([[0, 257, 32768, 65535]], np.uint16)
    for kind in ("PNG", "TIFF"):
        decoded = decode_rgb(encoded(Image.fromarray(levels), kind), LIMITS)
        assert decoded[0, :, 0].tolist() == [0, 1, 128, 255]
        assert (decoded == decoded[..., :1]).all()


def gray_tiff(pixels: bytes, *, bits: int, white_is_zero: bool = False) -> bytes:
    """2 x 2 pixels."""
    tags = {256: 2, 257: 2, 258: bits, 259: 1, 262: 1 - white_is_zero, 273: 110, 277: 1, 279: len(pixels)}
    entries = b"".join(struct.pack("<HHLL", tag, 4, 1, value) for tag, value in tags.items())
    return struct.pack("<2sHLH", b"II", 42, 8, len(tags)) + entries + bytes(4) + pixels


def test_12_bit_gray_has_its_own_white() -> None:
    decoded = decode_rgb(gray_tiff(bytes.fromhex("fff000 800fff"), bits=12), LIMITS)
    assert decoded[..., 0].tolist() == [[255, 0], [128, 255]]


def test_16_bit_gray_whose_white_is_zero_is_no_negative() -> None:
    pixels = struct.pack("<4H", 0, 65535, 257, 0)
    decoded = decode_rgb(gray_tiff(pixels, bits=16, white_is_zero=True), LIMITS)
    assert decoded[..., 0].tolist() == [[255, 0], [254, 255]]


def test_32_bit_images_are_refused_with_what_is_allowed() -> None:
    with pytest.raises(UndecodableImageError, match="8 or 16 bits"):
        decode_rgb(encoded(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"), LIMITS)


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True})])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int, kind: str, options: dict[str, object]) -> None:
    upright = Image.fromarray(np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3))
    # What a camera stores so that a viewer, by the tag, shows `upright`.
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}.get(orientation)
    stored = upright if undo is None else upright.transpose(Image.Transpose(undo))
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode_rgb(encoded(stored, kind, exif=exif, **options), LIMITS)
    assert np.array_equal(decoded, np.asarray(upright))
    assert decoded.flags.c_contiguous


def test_orientation_counts_though_other_exif_data_is_broken() -> None:
    entries = struct.pack("<HHLHH", 0x0112, 3, 1, 6, 0) + struct.pack("<HHLL", 0x8769, 4, 1, 2**32 - 16)
    exif = b"Exif\0\0" + struct.pack("<2sHLH", b"II", 42, 8, 2) + entries + bytes(4)
    assert decode_rgb(encoded(Image.new("RGB", (20, 10)), "JPEG", exif=exif), LIMITS).shape == (20, 10, 3)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_as_good_as_none(value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    assert decode_rgb(encoded(Image.new("RGB", (20, 10)), "JPEG", exif=exif), LIMITS).shape == (10, 20, 3)


def test_what_follows_a_jpeg_is_none_of_our_business() -> None:
    """Phones append films, in which the two bytes that begin a scan turn up by chance."""
    film = np.random.default_rng(0).bytes(4_000_000) + b"\xff\xda" * 100
    assert decode_rgb(encoded(image(), "JPEG") + film, LIMITS).shape == (16, 16, 3)


def test_nothing_is_warned_of() -> None:
    """In a process of its own, where any warning is an error: here pytest has filters of its own."""
    program = (
        "import sys; from patchserve_server.imaging import ImageLimits, decode\n"
        "data = bytes.fromhex(sys.argv[1])\n"
        "import warnings; warnings.simplefilter('error', append=True)\n"
        "print(decode(data, ImageLimits()).size)\n"
    )
    palette = image().convert("P")
    corrupt = b"Exif\0\0" + struct.pack("<2sHLHHHLLL", b"II", 42, 8, 1, 0x010F, 2, 4000, 4000, 0)
    for data in (encoded(palette, "PNG", transparency=bytes(range(256))), encoded(image(), "JPEG", exif=corrupt)):
        done = subprocess.run([sys.executable, "-c", program, data.hex()], capture_output=True, text=True, check=True)
        assert (done.stdout.strip(), done.stderr) == ("(16, 16)", "")


@pytest.mark.parametrize("size_px", [(3, 2), (2500, 2000)])  # beyond 4 million pixels it is read in bands
def test_the_pixels_of_an_image(size_px: tuple[int, int]) -> None:
    drawn = np.random.default_rng(0).integers(0, 256, (*size_px[::-1], 3), dtype=np.uint8)
    pixels = pixels_of(Image.fromarray(drawn))
    assert np.array_equal(pixels, drawn)
    assert pixels.flags.c_contiguous


def test_images_are_decoded_side_by_side() -> None:
    images = [Image.fromarray(np.full((300, 400, 3), level, np.uint8)) for level in range(0, 256, 8)]
    with ThreadPoolExecutor(8) as pool:
        decoded = list(pool.map(lambda one: decode_rgb(encoded(one, "PNG"), LIMITS), images))
    assert [int(array[0, 0, 0]) for array in decoded] == list(range(0, 256, 8))


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0", b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01"]
)
def test_broken_exif_is_as_good_as_none(exif: bytes) -> None:
    assert decode_rgb(encoded(image(), "JPEG", exif=exif), LIMITS).shape == (16, 16, 3)


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})])
def test_the_first_frame_of_an_animation(kind: str, options: dict[str, object]) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "green", "blue")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert (decode_rgb(data, LIMITS) == (255, 0, 0)).all()


def test_no_bytes() -> None:
    with pytest.raises(EmptyImageError, match="JPEG, PNG, WebP, BMP or TIFF"):
        decode_rgb(b"", LIMITS)


def test_too_many_bytes_are_told_with_the_limit() -> None:
    data = encoded(image(), "BMP")
    with pytest.raises(ImageTooLargeError, match=r"822 bytes; at most 800 "):
        decode_rgb(data, ImageLimits(max_bytes=800))


def test_too_many_pixels_are_told_before_any_is_decoded() -> None:
    header_only = encoded(Image.new("RGB", (300, 200)), "PNG")[:60]
    with pytest.raises(ImageTooLargeError, match=r"300 x 200 pixels; at most 50,000 "):
        decode_rgb(header_only, ImageLimits(max_pixels=50_000))


def test_a_side_may_not_be_endless() -> None:
    with pytest.raises(ImageTooLargeError, match=r"70000 x 1 pixels; at most 65,535 a side "):
        decode_rgb(encoded(Image.new("L", (70_000, 1)), "PNG"), LIMITS)


@pytest.mark.parametrize("kind", ["GIF", "PPM", "ICO", "TGA"])
def test_other_formats_are_refused(kind: str) -> None:
    with pytest.raises(UndecodableImageError, match="JPEG, PNG, WebP, BMP or TIFF"):
        decode_rgb(encoded(image(), kind), LIMITS)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_a_truncated_image_says_so(kind: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    data = encoded(noise, kind)
    with pytest.raises(UndecodableImageError, match=r"truncated|damaged"):
        decode_rgb(data[: len(data) // 2], LIMITS)
