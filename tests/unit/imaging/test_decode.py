"""Every supported format and mode becomes upright RGB; everything else is refused with the reason."""

from __future__ import annotations

import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from fakes.images import encoded
from PIL import Image

from patchserve_server.domain.errors import EmptyImageError, ImageTooLargeError, UndecodableImageError
from patchserve_server.domain.images import RgbImage, SentImage
from patchserve_server.domain.raw_frame import RawFrame
from patchserve_server.imaging import ImageLimits, decode_image, open_image
from patchserve_server.imaging.pil_image import to_rgb_array

LIMITS = ImageLimits()
FOUR_COLORS: RgbImage = np.kron(
    np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 0]]], np.uint8), np.ones((8, 8, 1), np.uint8)
).astype(np.uint8)
"""(16, 16, 3): red, green over blue, yellow."""


def four_colors() -> Image.Image:
    return Image.fromarray(FOUR_COLORS)


def decode_rgb(data: bytes, limits: ImageLimits = LIMITS) -> np.ndarray:
    return np.asarray(decode_image(data, limits))


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
def test_every_supported_format_is_decoded(kind: str, options: dict[str, object], tolerance: int) -> None:
    decoded = decode_rgb(encoded(four_colors(), kind, **options))
    assert decoded.shape == (16, 16, 3)
    assert decoded.dtype == np.uint8
    assert decoded.flags.c_contiguous
    difference = np.abs(decoded.astype(int) - FOUR_COLORS)
    assert difference[2:6, 2:6].max() <= tolerance


@pytest.mark.parametrize("mode", ["L", "LA", "1", "P", "RGBA", "CMYK", "YCbCr", "LAB"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    source = four_colors().convert(mode)
    kind = "TIFF" if mode in ("CMYK", "YCbCr", "LAB") else "PNG"
    decoded = decode_rgb(encoded(source, kind))
    assert decoded.shape == (16, 16, 3)
    assert np.abs(decoded.astype(int) - np.asarray(source.convert("RGB"))).max() <= 2


def test_a_cmyk_jpeg_is_not_inverted() -> None:
    decoded = decode_rgb(encoded(four_colors().convert("CMYK"), "JPEG", quality=95))
    assert decoded[3, 3, 0] > 200
    assert decoded[3, 3, 2] < 90


def test_16_bit_gray_is_scaled_and_not_clipped() -> None:
    levels = np.array([[0, 257, 32768, 65535]], np.uint16)
    for kind in ("PNG", "TIFF"):
        decoded = decode_rgb(encoded(Image.fromarray(levels), kind))
        assert decoded[0, :, 0].tolist() == [0, 1, 128, 255]
        assert (decoded == decoded[..., :1]).all()


def gray_tiff(pixels: bytes, *, bits: int, white_is_zero: bool = False) -> bytes:
    """2 x 2 pixels."""
    tags = {256: 2, 257: 2, 258: bits, 259: 1, 262: 1 - white_is_zero, 273: 110, 277: 1, 279: len(pixels)}
    entries = b"".join(struct.pack("<HHLL", tag, 4, 1, value) for tag, value in tags.items())
    return struct.pack("<2sHLH", b"II", 42, 8, len(tags)) + entries + bytes(4) + pixels


def test_white_in_12_bit_gray_stays_white() -> None:
    decoded = decode_rgb(gray_tiff(bytes.fromhex("fff000 800fff"), bits=12))
    assert decoded[..., 0].tolist() == [[255, 0], [128, 255]]


def test_16_bit_gray_with_white_as_zero_is_not_inverted() -> None:
    pixels = struct.pack("<4H", 0, 65535, 257, 0)
    decoded = decode_rgb(gray_tiff(pixels, bits=16, white_is_zero=True))
    assert decoded[..., 0].tolist() == [[255, 0], [254, 255]]


def test_32_bit_images_are_refused_and_the_error_says_what_is_supported() -> None:
    with pytest.raises(UndecodableImageError, match="8 or 16 bits"):
        decode_rgb(encoded(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"))


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True})])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int, kind: str, options: dict[str, object]) -> None:
    upright = Image.fromarray(np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3))
    # A camera stores the pixels so that a viewer that follows the tag shows `upright`.
    inverse = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}.get(orientation)
    stored = upright if inverse is None else upright.transpose(Image.Transpose(inverse))
    decoded = decode_rgb(encoded(stored, kind, exif=exif_orientation(orientation), **options))
    assert np.array_equal(decoded, np.asarray(upright))
    assert decoded.flags.c_contiguous


def exif_orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def test_orientation_is_applied_even_if_other_exif_data_is_damaged() -> None:
    entries = struct.pack("<HHLHH", 0x0112, 3, 1, 6, 0) + struct.pack("<HHLL", 0x8769, 4, 1, 2**32 - 16)
    exif = b"Exif\0\0" + struct.pack("<2sHLH", b"II", 42, 8, 2) + entries + bytes(4)
    assert decode_rgb(encoded(Image.new("RGB", (20, 10)), "JPEG", exif=exif)).shape == (20, 10, 3)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_unknown_orientation_is_ignored(value: int) -> None:
    data = encoded(Image.new("RGB", (20, 10)), "JPEG", exif=exif_orientation(value))
    assert decode_rgb(data).shape == (10, 20, 3)


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0", b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01"]
)
def test_damaged_exif_data_is_ignored(exif: bytes) -> None:
    assert decode_rgb(encoded(four_colors(), "JPEG", exif=exif)).shape == (16, 16, 3)


def test_data_after_the_end_of_a_jpeg_is_ignored() -> None:
    """Phones append videos, in which the two bytes that start a scan occur by chance."""
    video = np.random.default_rng(0).bytes(4_000_000) + b"\xff\xda" * 100
    assert decode_rgb(encoded(four_colors(), "JPEG") + video).shape == (16, 16, 3)


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})])
def test_only_the_first_frame_of_an_animation_is_decoded(kind: str, options: dict[str, object]) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "green", "blue")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert (decode_rgb(data) == (255, 0, 0)).all()


@pytest.mark.parametrize("size_px", [(3, 2), (2500, 2000)])  # images of more than 4 million pixels are read in bands
def test_the_array_of_an_image_has_all_its_pixels(size_px: tuple[int, int]) -> None:
    drawn = np.random.default_rng(0).integers(0, 256, (*size_px[::-1], 3), dtype=np.uint8)
    pixels = to_rgb_array(Image.fromarray(drawn))
    assert np.array_equal(pixels, drawn)
    assert pixels.flags.c_contiguous


def test_threads_can_decode_images_in_parallel() -> None:
    images = [Image.fromarray(np.full((300, 400, 3), level, np.uint8)) for level in range(0, 256, 8)]
    with ThreadPoolExecutor(8) as pool:
        decoded = list(pool.map(lambda image: decode_rgb(encoded(image, "PNG")), images))
    assert [int(array[0, 0, 0]) for array in decoded] == list(range(0, 256, 8))


def test_an_empty_image_is_refused_and_the_error_lists_the_formats() -> None:
    with pytest.raises(EmptyImageError, match="JPEG, PNG, WebP, BMP or TIFF"):
        decode_rgb(b"")


@pytest.mark.parametrize("kind", ["GIF", "PPM", "ICO", "TGA"])
def test_other_formats_are_refused_and_the_error_lists_the_formats(kind: str) -> None:
    with pytest.raises(UndecodableImageError, match="JPEG, PNG, WebP, BMP or TIFF"):
        decode_rgb(encoded(four_colors(), kind))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_the_error_says_that_an_image_is_truncated_or_damaged(kind: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    data = encoded(noise, kind)
    with pytest.raises(UndecodableImageError, match=r"truncated|damaged"):
        decode_rgb(data[: len(data) // 2])


def test_a_file_with_too_many_bytes_is_refused() -> None:
    with pytest.raises(ImageTooLargeError, match=r"822 bytes; at most 800 "):
        decode_rgb(encoded(four_colors(), "BMP"), ImageLimits(max_bytes=800))


def test_an_image_with_too_many_pixels_is_refused_before_it_is_decoded() -> None:
    header_only = encoded(Image.new("RGB", (300, 200)), "PNG")[:60]
    with pytest.raises(ImageTooLargeError, match=r"300 x 200 pixels; at most 50,000 "):
        decode_rgb(header_only, ImageLimits(max_pixels=50_000))


def test_an_image_with_a_side_that_is_too_long_is_refused() -> None:
    with pytest.raises(ImageTooLargeError, match=r"70000 x 1 pixels; at most 65,535 per side "):
        decode_rgb(encoded(Image.new("L", (70_000, 1)), "PNG"))


def test_an_image_can_be_given_as_a_file_or_as_pixels() -> None:
    for content in (encoded(four_colors(), "PNG"), RawFrame(FOUR_COLORS)):
        assert np.array_equal(np.asarray(open_image(SentImage(content), LIMITS)), FOUR_COLORS)


def test_pixels_keep_the_same_limits_as_files() -> None:
    with pytest.raises(ImageTooLargeError, match=r"16 x 16 pixels; at most 255 "):
        open_image(SentImage(RawFrame(FOUR_COLORS)), ImageLimits(max_pixels=255))
    with pytest.raises(ImageTooLargeError, match=r"1 x 65536 pixels; at most 65,535 per side "):
        open_image(SentImage(RawFrame(np.zeros((65_536, 1, 3), np.uint8))), LIMITS)


@pytest.mark.parametrize("limits", [{"max_bytes": 0}, {"max_pixels": 0}, {"max_bytes": -1}])
def test_limits_are_positive(limits: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="positive"):
        ImageLimits(**limits)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_colors_that_are_transparent_do_not_count(kind: str, mode: str) -> None:
    decoded = []
    for hidden in ("black", "white", "red"):
        image = Image.new(mode, (8, 8), (*Image.new("RGB", (1, 1), hidden).getpixel((0, 0)), 0)[-len(mode) :])  # type: ignore[misc]
        image.paste(Image.new(mode, (4, 8), (90,) * (len(mode) - 1) + (255,)))
        options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
        decoded.append(decode_rgb(encoded(image, kind, **options)))
    assert (decoded[0][:, :4] == 90).all()
    assert (decoded[0][:, 4:] == 255).all()
    assert all(np.array_equal(decoded[0], other) for other in decoded[1:])


def test_what_is_half_transparent_is_half_white() -> None:
    assert decode_rgb(encoded(Image.new("RGBA", (2, 2), (0, 100, 200, 128)), "PNG"))[0, 0].tolist() == [127, 177, 227]


def test_an_opaque_alpha_channel_changes_no_color() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))
    assert np.array_equal(decode_rgb(encoded(image.convert("RGBA"), "PNG")), np.asarray(image))


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1"])
def test_a_transparent_color_becomes_white(mode: str) -> None:
    image = Image.new("RGB", (4, 2), "white")
    image.paste((0, 0, 0), (0, 0, 2, 2))
    stored = image.convert(mode)
    black = stored.getpixel((0, 0))
    decoded = decode_rgb(encoded(stored, "PNG", transparency=black))
    assert (decoded == 255).all()
    assert not decode_rgb(encoded(stored, "PNG"))[:, :2].any()


def test_a_palette_may_have_half_transparent_colors() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.putpixel((1, 0), 1)
    decoded = decode_rgb(encoded(image, "PNG", transparency=bytes([0, 255])))
    assert decoded.tolist() == [[[255, 255, 255], [10, 20, 30]]]


@pytest.mark.parametrize(("color_type", "samples"), [(0, 1), (2, 3)])
def test_a_transparent_color_of_16_bits_becomes_white(color_type: int, samples: int) -> None:
    row = b"\0" + struct.pack(f">{2 * samples}H", *[0x1234] * samples, *[0x5678] * samples)
    color = struct.pack(f">{samples}H", *[0x1234] * samples)
    decoded = decode_rgb(png_of(2, 1, 16, color_type, row, transparent=color))
    assert decoded[0].tolist() == [[255] * 3, [0x56] * 3]


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("bits_beside", [0, 0x4000])
def test_a_transparent_gray_of_any_depth_becomes_white(depth: int, bits_beside: int) -> None:
    """Only the lowest bits of the stored color count, as many as a pixel has."""
    row = b"\0" + bytes([1 << 8 - depth])  # one pixel of level 1, then black
    decoded = decode_rgb(
        png_of(2, 1, depth, 0, row + bytes(depth == 8), transparent=struct.pack(">H", bits_beside | 1))
    )
    assert decoded[0].tolist() == [[255] * 3, [0] * 3]
    if depth > 1:
        opaque = decode_rgb(png_of(2, 1, depth, 0, row + bytes(depth == 8), transparent=struct.pack(">H", 2)))
        assert opaque[0].tolist() == [[255 // (2**depth - 1)] * 3, [0] * 3]


def png_of(width: int, height: int, depth: int, color_type: int, rows: bytes, *, transparent: bytes) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0))
    data = chunk(b"tRNS", transparent) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + data


def test_colors_that_were_multiplied_with_their_opacity_are_divided() -> None:
    """A TIFF with associated alpha: half of white is stored as gray."""
    tags = {256: 1, 257: 1, 258: 8, 259: 1, 262: 2, 273: 134, 277: 4, 279: 4, 338: 1}
    entries = b"".join(struct.pack("<HHLL", tag, 3 if tag == 258 else 4, 1, value) for tag, value in tags.items())
    entries = entries.replace(struct.pack("<HHLL", 258, 3, 1, 8), struct.pack("<HHLL", 258, 3, 4, 122))
    file = struct.pack("<2sHLH", b"II", 42, 8, len(tags)) + entries + bytes(4) + struct.pack("<4H", 8, 8, 8, 8)
    file = file.ljust(134, b"\0") + bytes([128, 128, 128, 128])
    assert decode_rgb(file)[0, 0].tolist() == [255, 255, 255]


def test_a_bmp_with_an_unused_fourth_byte_is_opaque() -> None:
    header = struct.pack("<IiiHHIIiiII", 108, 1, 1, 1, 32, 3, 4, 0, 0, 0, 0)
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    start = 14 + 108
    for alpha, expected in ((0, [3, 2, 1]), (255, [3, 2, 1])):
        body = header + masks + bytes(108 - len(header + masks)) + bytes([1, 2, 3, alpha])
        assert decode_rgb(struct.pack("<2sIHHI", b"BM", start + 4, 0, 0, start) + body)[0, 0].tolist() == expected
