"""Files for a device: their pixels are those of the image, and nothing else of it is in them."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fakes.images import encoded
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from patchserve_server.domain.errors import ImageTooLargeError, UndecodableImageError
from patchserve_server.domain.images import SentImage
from patchserve_server.domain.jpeg_file import JpegFile
from patchserve_server.domain.raw_frame import RawFrame
from patchserve_server.imaging import ImageLimits, decode_image, device_file
from patchserve_server.imaging.decode import upright
from patchserve_server.imaging.device_file import MAX_DEVICE_PIXELS
from patchserve_server.imaging.jpeg_segments import segments

LIMITS = ImageLimits()
NOTE = b"taken in hall 7"


def noise(width: int = 41, height: int = 27, seed: int = 1) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def oriented(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def file_of(data: bytes) -> JpegFile | None:
    return device_file(SentImage(data), LIMITS)


def device_pixels(file: JpegFile) -> np.ndarray:
    """What a device makes of it: it knows the file alone, and how to turn it."""
    image = Image.open(io.BytesIO(file.data))
    assert image.size == file.stored_size_px
    return np.asarray(upright(image.convert("RGB"), file.orientation))


def markers(data: bytes) -> set[int]:
    return {data[at + 1] for at in range(len(data) - 1) if data[at] == 0xFF and data[at + 1] not in (0, 0xFF)}


@settings(max_examples=60, deadline=None)
@given(
    size_px=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    subsampling=st.integers(0, 2),
    restarts=st.integers(0, 3),
    gray=st.booleans(),
    orientation=st.integers(0, 9),
    extras=st.fixed_dictionaries({}, optional={"comment": st.just(NOTE), "icc_profile": st.just(NOTE * 9)}),
)
def test_its_pixels_are_those_of_the_image(
    *,
    size_px: tuple[int, int],
    subsampling: int,
    restarts: int,
    gray: bool,
    orientation: int,
    extras: dict[str, Any],
) -> None:
    image = noise(*size_px).convert("L" if gray else "RGB")
    data = encoded(
        image,
        subsampling=0 if gray else subsampling,
        restart_marker_blocks=restarts,
        exif=oriented(orientation),
        **extras,
    )
    file = file_of(data)
    assert file is not None
    np.testing.assert_array_equal(device_pixels(file), np.asarray(decode_image(data, LIMITS)))
    assert NOTE not in file.data
    assert b"Exif" not in file.data
    assert file.nbytes < len(data)


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body


def in_scans(*components: int, mark: bytes = b"") -> bytes:
    """A baseline file with a scan for each of these components, all of which it should have; `mark` ends each scan."""
    gray = [encoded(noise(seed=seed).convert("L")) for seed in range(3)]
    *header, scan, end = segments(gray[0])
    pixels = [data[scan.start + 4 + len(scan.body) : -2] for data in gray]
    frame = next(each.body for each in header if each.marker == 0xC0)
    data = gray[0][:2] + b"".join(segment(each.marker, each.body) for each in header if each.marker in (0xDB, 0xC4))
    data += segment(0xC0, frame[:5] + b"\3" + b"".join(bytes([id_, 0x11, 0]) for id_ in (1, 2, 3)))
    scans = [segment(0xDA, bytes([1, each, 0, 0, 63, 0])) + pixels[each - 1] + mark for each in components]
    return data + b"".join(scans) + gray[0][end.start :]


def inserted(before: int, marker: int, body: bytes) -> bytes:
    """A file of several scans, with one more segment before the last one of a kind."""
    data = in_scans(1, 2, 3)
    at = data.rindex(bytes([0xFF, before]))
    return data[:at] + segment(marker, body) + data[at:]


@pytest.mark.parametrize(
    "data",
    [
        inserted(0xDA, 0xFE, NOTE),
        inserted(0xDA, 0xE1, b"Exif\0\0" + NOTE),
        encoded(noise()) + encoded(noise(seed=2)),
        encoded(noise()) + NOTE,
        encoded(noise())[:2] + b"\xff\xff\xff" + encoded(noise())[2:],
    ],
    ids=["a comment between scans", "EXIF between scans", "another image behind it", "text behind it", "fill bytes"],
)
def test_what_is_elsewhere_than_at_the_begin_is_removed_as_well(data: bytes) -> None:
    file = file_of(data)
    assert file is not None
    assert NOTE not in file.data
    assert not markers(file.data) & {*range(0xE0, 0xF0), 0xFE}
    assert file.data.endswith(b"\xff\xd9")
    assert file.data.count(b"\xff\xd8") == 1
    np.testing.assert_array_equal(device_pixels(file), np.asarray(decode_image(data, LIMITS)))


def changed_frame(change: Callable[[bytearray, int], None]) -> bytes:
    data = bytearray(encoded(noise()))
    change(data, data.index(b"\xff\xc0"))
    return bytes(data)


def with_ids(ids: bytes) -> bytes:
    data = bytearray(encoded(noise()))
    frame, scan = data.index(b"\xff\xc0"), data.index(b"\xff\xda")
    data[frame + 10 : frame + 19 : 3] = ids
    data[scan + 5 : scan + 11 : 2] = ids
    return bytes(data)


def with_sampling(sampling: int) -> bytes:
    """The brightness has other sampling factors: in the header; what follows has too few pixels then, or too many."""

    def change(data: bytearray, frame: int) -> None:
        data[frame + 11] = sampling

    return changed_frame(change)


def rebuilt(data: bytes, change: Callable[[int, bytes], bytes]) -> bytes:
    """The file, with something else for each segment before its end."""
    *found, end = segments(data)
    stops = [following.start for following in [*found[1:], end]]
    parts = [
        change(marker, body) + data[start + 4 + len(body) : stop]
        for (marker, start, body), stop in zip(found, stops, strict=True)
    ]
    return b"".join([data[:2], *parts, data[end.start :]])


def in_16_bits(marker: int, body: bytes) -> bytes:
    if marker != 0xDB:
        return segment(marker, body)
    values = b"".join(bytes([0, value]) for value in body[1:65])
    return segment(marker, bytes([0x10 | body[0]]) + values)


def without_huffman_tables(marker: int, body: bytes) -> bytes:
    return b"" if marker == 0xC4 else segment(marker, body)


OTHERS = {
    "progressive": encoded(noise(), progressive=True),
    "tables with 16 bits": rebuilt(encoded(noise()), in_16_bits),
    "no Huffman tables": rebuilt(
        encoded(noise()), lambda marker, body: b"" if marker == 0xC4 else segment(marker, body)
    ),
    "other tables after a scan": inserted(0xDA, 0xDB, bytes([0]) + bytes([50] * 64)),
    "a component in two scans": in_scans(1, 2, 3, 1),
    "fill bytes in a scan": in_scans(1, 2, 3, mark=b"\xff\xff"),
    "thousands of restart markers": encoded(noise())[:-2] + b"\xff\xd0" * 2**17 + b"\xff\xd9",
    "gray with sampling factors": rebuilt(
        encoded(noise().convert("L")),
        lambda marker, body: segment(marker, body[:7] + b"\x22" + body[8:] if marker == 0xC0 else body),
    ),
    "PNG": encoded(noise(), "PNG"),
    "no bytes": b"",
    "CMYK": encoded(noise().convert("CMYK")),
    "RGB by Adobe's marker": encoded(noise(), keep_rgb=True),
    "components that count from 0": with_ids(b"\0\1\2"),
    "components named R, G, B": with_ids(b"RGB"),
    "extended": changed_frame(lambda data, frame: data.__setitem__(frame + 1, 0xC1)),
    "a number of lines at its end": encoded(noise())[:-2] + segment(0xDC, b"\0\x1b") + b"\xff\xd9",
    "thousands of comments": encoded(noise())[:2] + segment(0xFE, b"") * 1200 + encoded(noise())[2:],
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_a_device_may_read_otherwise_is_for_the_cpu(name: str) -> None:
    assert file_of(OTHERS[name]) is None


def test_pixels_of_a_camera_are_for_the_cpu() -> None:
    assert device_file(SentImage(RawFrame(np.zeros((4, 4, 3), np.uint8))), LIMITS) is None


def test_an_image_that_is_large_when_it_is_decoded_is_for_the_cpu() -> None:
    width = 8192
    image = Image.new("L", (width, MAX_DEVICE_PIXELS // width + 1))
    assert device_file(SentImage(encoded(image)), LIMITS) is None


def test_limits_are_checked_and_named_as_ever() -> None:
    data = encoded(noise())
    for limits in (ImageLimits(max_bytes=len(data) - 1), ImageLimits(max_pixels=41 * 27 - 1)):
        with pytest.raises(ImageTooLargeError) as caught:
            device_file(SentImage(data), limits)
        with pytest.raises(ImageTooLargeError) as expected:
            decode_image(data, limits)
        assert str(caught.value) == str(expected.value)


def test_a_baseline_file_may_have_a_scan_for_each_component() -> None:
    for order in ((1, 2, 3), (3, 1, 2)):
        file = file_of(in_scans(*order))
        assert file is not None
        np.testing.assert_array_equal(device_pixels(file), np.asarray(decode_image(in_scans(*order), LIMITS)))


@pytest.mark.parametrize("components", [(1,), (1, 2), (2, 3)])
def test_a_file_that_lacks_a_component_is_refused(components: tuple[int, ...]) -> None:
    for read in (file_of, lambda data: decode_image(data, LIMITS)):
        with pytest.raises(UndecodableImageError, match="lacks some of its scans"):
            read(in_scans(*components))


def test_a_file_that_is_not_whole_is_refused() -> None:
    data = encoded(noise())
    for share in (0.5, 0.9):
        with pytest.raises(UndecodableImageError, match="truncated"):
            file_of(data[: int(share * len(data))])


def flat(*factors: int) -> bytes:
    """A gray image of 16 x 8 pixels, in a layout that no encoder of ours writes: with these sampling factors."""
    data = bytearray(encoded(Image.new("RGB", (16, 8), (128, 128, 128)), subsampling=0))
    frame, scan = data.index(b"\xff\xc0"), data.index(b"\xff\xda")
    data[frame + 11 : frame + 11 + 3 * len(factors) : 3] = bytes(factors)
    across, down = 8 * max(factor >> 4 for factor in factors), 8 * max(factor & 15 for factor in factors)
    no_change = ("001010", "0000", "0000")  # of luma and chroma: what a block without any change is, in standard tables
    unit = "".join(bits * (factor >> 4) * (factor & 15) for bits, factor in zip(no_change, factors, strict=True))
    bits = unit * (-(-16 // across) * -(-8 // down))
    bits += "1" * (-len(bits) % 8)
    pixels = int(bits, 2).to_bytes(len(bits) // 8, "big")
    return bytes(data[: scan + 2 + int.from_bytes(data[scan + 2 : scan + 4], "big")]) + pixels + b"\xff\xd9"


@pytest.mark.parametrize(
    ("factors", "is_for_device"),
    [
        ((0x11, 0x11, 0x11), True),
        ((0x21, 0x11, 0x11), True),
        ((0x22, 0x11, 0x11), True),
        ((0x41, 0x11, 0x11), True),
        ((0x21, 0x21, 0x21), False),
        ((0x12, 0x12, 0x12), False),
        ((0x22, 0x12, 0x12), False),
        ((0x22, 0x21, 0x21), False),
    ],
)
def test_the_same_layout_in_other_factors_is_not_for_a_device(factors: tuple[int, ...], is_for_device: bool) -> None:
    """They are the same pixels for libjpeg. What else reads them may not know them, at the cost of a whole batch."""
    data = flat(*factors)
    assert (np.asarray(decode_image(data, LIMITS)) == 128).all()
    assert (file_of(data) is not None) == is_for_device
