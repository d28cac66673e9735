"""The codec of a device: what it decodes and draws, on the CPU with the same library."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
import torchcodec.decoders
from fakes.anomaly_maps import hot_spot
from fakes.devices import jpeg_file
from fakes.images import card
from PIL import Image
from torch import Tensor

from patchserve_server.domain.errors import StartupError
from patchserve_server.domain.input_options import InputShape
from patchserve_server.domain.inspection import HeatmapScale
from patchserve_server.domain.jpeg_file import DeviceCodecError, JpegFile
from patchserve_server.domain.overlay_drawing import OverlayDrawing
from patchserve_server.fronts.codec_messages import drawing_from, drawing_message
from patchserve_server.imaging import heat_levels
from patchserve_server.imaging.decode import upright
from patchserve_server.imaging.on_device import TorchCodec, codec, open_codec, torchcodec_calls
from patchserve_server.imaging.on_device.scaling import AxisWeights

pytest.importorskip("torchcodec")

CPU, SHAPE = torch.device("cpu"), InputShape(96, 128)
UNKNOWN = JpegFile(b"\xff\xd8 nothing that anybody decodes", (320, 240))


@pytest.fixture
def opened() -> TorchCodec:
    return TorchCodec(CPU)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many files each call of the library has."""
    counted, decode = list[int](), torchcodec_calls.decode

    def count(data: Sequence[bytes], device: torch.device) -> list[Tensor]:
        counted.append(len(data))
        return decode(data, device)

    monkeypatch.setattr(torchcodec_calls, "decode", count)
    return counted


def expected(file: JpegFile) -> Any:
    image = upright(Image.open(io.BytesIO(file.data)).convert("RGB"), file.orientation)
    return np.asarray(image.resize(SHAPE.size_px, Image.Resampling.BILINEAR))


def drawing_on(file: JpegFile, scale: HeatmapScale = HeatmapScale.CALIBRATED) -> OverlayDrawing:
    outlines = [[(10, 20), (80, 20), (80, 90)]]
    return OverlayDrawing(file, heat_levels(hot_spot(), scale, 2.0), scale, file.size_px, outlines)


def test_files_of_all_sizes_and_orientations_are_decoded_in_one_call(opened: TorchCodec, calls: list[int]) -> None:
    sizes = ((320, 240), (240, 320), (50, 40), (320, 240))
    files = [
        jpeg_file(card(number).resize(sizes[number % 4]), orientation, subsampling=number % 3)
        for number, orientation in enumerate([*range(1, 9), *range(1, 9)])
    ]
    files.append(jpeg_file(card(1).convert("L")))
    for file, pixels in zip(files, opened.decode(files, SHAPE), strict=True):
        assert isinstance(pixels, Tensor)
        assert np.array_equal(pixels.numpy(), expected(file))
    assert calls == [len(files)]


def test_files_of_one_size_are_scaled_together(opened: TorchCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    """A product for each axis, and not for each file."""
    scaled, scale = list[int](), AxisWeights.scale

    def count(weights: AxisWeights, pixels: Tensor) -> Tensor:
        scaled.append(len(pixels))
        return scale(weights, pixels)

    monkeypatch.setattr(AxisWeights, "scale", count)
    opened.decode([jpeg_file(card(number)) for number in range(8)], SHAPE)
    assert scaled == [8 * 3] * 2


def test_a_file_that_cannot_be_decoded_costs_no_other_its_pixels(opened: TorchCodec, calls: list[int]) -> None:
    good, other_size = jpeg_file(card(1)), JpegFile(jpeg_file(card(2)).data, (320, 241))
    found = opened.decode([good, UNKNOWN, other_size, good], SHAPE)
    assert [isinstance(one, Tensor) for one in found] == [True, False, False, True]
    assert isinstance(found[0], Tensor)
    assert np.array_equal(found[0].numpy(), expected(good))
    assert calls == [4, 1, 1, 1, 1], "the library does not say which one it was"
    assert "cpp" not in str(found[1])


def test_few_files_may_fail_in_one_call(opened: TorchCodec, calls: list[int]) -> None:
    """Each of them costs the library its decoder. What is left is for the CPU, and the next call begins anew."""
    good = jpeg_file(card(1))
    found = opened.decode([good, *[UNKNOWN] * 40, good], SHAPE)
    assert isinstance(found[0], Tensor)
    assert all(isinstance(one, DeviceCodecError) for one in found[1:])
    assert calls == [42, 1, 1, 1, 1]
    assert isinstance(opened.decode([good], SHAPE)[0], Tensor)


def test_decoded_pixels_at_once_are_limited(
    opened: TorchCodec, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [jpeg_file(card(number)) for number in range(5)]
    monkeypatch.setattr(codec, "MAX_DECODED_BYTES", 2 * 3 * 320 * 240)
    found = opened.decode(files, SHAPE)
    assert calls == [2, 2, 1]
    for file, pixels in zip(files, found, strict=True):
        assert isinstance(pixels, Tensor)
        assert np.array_equal(pixels.numpy(), expected(file))
    calls.clear()
    assert len(opened.draw([drawing_on(file) for file in files])) == 5
    assert calls == [2, 2, 1]


@pytest.mark.parametrize("scale", HeatmapScale)
def test_overlays_are_jpeg_files_of_their_size(opened: TorchCodec, scale: HeatmapScale) -> None:
    files = [jpeg_file(card(1)), jpeg_file(card(2), orientation=6), UNKNOWN, jpeg_file(card(3).convert("L"))]
    drawn = opened.draw([drawing_on(file, scale) for file in files])
    assert isinstance(drawn[2], DeviceCodecError)
    for file, overlay in zip(files, drawn, strict=True):
        if isinstance(overlay, bytes):
            image = Image.open(io.BytesIO(overlay))
            assert (image.format, image.size, image.mode) == ("JPEG", file.size_px, "RGB")
            assert np.asarray(image).std() > 20


@pytest.mark.parametrize("scale", HeatmapScale)
@pytest.mark.filterwarnings("error")
def test_a_drawing_that_came_over_a_link_is_drawn_without_a_warning(opened: TorchCodec, scale: HeatmapScale) -> None:
    drawing = drawing_from(*drawing_message(drawing_on(jpeg_file(card(1)), scale)))
    assert not drawing.heat_levels.flags.writeable
    torch.set_warn_always(True)
    try:
        (drawn,) = opened.draw([drawing])
    finally:
        torch.set_warn_always(False)
    assert isinstance(drawn, bytes)


def test_an_overlay_that_does_not_fit_in_the_memory_of_the_device_is_left_to_the_cpu(
    opened: TorchCodec, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, left = torchcodec_calls.encode, [torch.OutOfMemoryError("CUDA out of memory.")]

    def fail_once(pixels: Tensor) -> Tensor:
        if left:
            raise left.pop()
        return encode(pixels)

    monkeypatch.setattr(torchcodec_calls, "encode", fail_once)
    first, second = opened.draw([drawing_on(jpeg_file(card(1)))] * 2)
    assert isinstance(first, DeviceCodecError)
    assert isinstance(second, bytes)


def has_no_memory(*_: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory.")


def test_a_file_that_the_device_has_no_memory_to_decode_is_left_to_the_cpu_and_a_batch_is_divided(
    opened: TorchCodec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torchcodec_calls, "decode", has_no_memory)
    (alone,) = opened.decode([jpeg_file(card(1))], SHAPE)
    assert isinstance(alone, DeviceCodecError)
    with pytest.raises(torch.OutOfMemoryError):
        opened.decode([jpeg_file(card(1))] * 2, SHAPE)


def test_too_little_memory_for_scaling_is_raised_so_that_the_batch_is_divided(
    opened: TorchCodec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codec, "upright", has_no_memory)
    with pytest.raises(torch.OutOfMemoryError):
        opened.decode([jpeg_file(card(1))], SHAPE)


def test_threads_do_not_disturb_each_other(opened: TorchCodec) -> None:
    opened.warm_up()
    files = [jpeg_file(card(number).resize((200 + number, 150))) for number in range(12)]
    with ThreadPoolExecutor(4) as pool:
        for file, (pixels,) in zip(files, pool.map(lambda file: opened.decode([file], SHAPE), files), strict=True):
            assert isinstance(pixels, Tensor)
            assert np.array_equal(pixels.numpy(), expected(file))


def test_a_device_that_is_full_when_threads_are_warmed_up_is_told_in_a_sentence(
    opened: TorchCodec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("decode_jpegs_cuda, /DecodeJpegCuda.cpp:99, Failed to create nvjpeg state: 5")

    monkeypatch.setattr(torchcodec_calls, "decode", fail)
    with pytest.raises(StartupError, match=r"cannot decode on cpu \(Failed to create nvjpeg state: 5\).*free memory"):
        opened.warm_up()


def test_decoding_leaves_the_filters_of_warnings_alone(opened: TorchCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are those of the process, and threads decode at the same time."""
    monkeypatch.setattr(warnings, "catch_warnings", None)
    (pixels,) = opened.decode([jpeg_file(card(1))], SHAPE)
    assert isinstance(pixels, Tensor)


def test_samples_are_whole_images_as_both_decode_them(opened: TorchCodec) -> None:
    exact, decoded = opened.samples(SHAPE)
    assert exact.shape == decoded.shape == (len(exact), *SHAPE.sides_px, 3)
    assert np.array_equal(exact, decoded), "on the CPU it is the same decoder"
    assert exact.std() > 20


def test_a_cpu_has_no_codec() -> None:
    with pytest.raises(StartupError, match=r"--decode device needs a GPU.*--decode cpu"):
        open_codec(CPU)


def test_a_missing_torchcodec_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("torchcodec")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    with pytest.raises(StartupError, match=r"needs the extra gpu.*server,gpu.*--decode cpu"):
        open_codec(torch.device("cuda", 0))


def test_a_torchcodec_without_cuda_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("decode_jpegs_cuda, /DecodeJpegCuda.cpp:20, torchcodec was not compiled with nvJPEG support")

    monkeypatch.setattr(codec, "TorchCodec", lambda _: TorchCodec(CPU))
    monkeypatch.setattr(torchcodec_calls, "decode", fail)
    with pytest.raises(StartupError, match=r"cannot decode on cuda:0 \(torchcodec was not compiled with nvJPEG"):
        open_codec(torch.device("cuda", 0))


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("decode_jpegs, /Decode.cpp:99, CUDA out of memory. Tried to allocate 2.00 GiB.", torch.OutOfMemoryError),
        ("decode_jpegs, /Decode.cpp:99, The image is corrupt.", RuntimeError),
    ],
)
def test_too_little_memory_inside_the_library_is_told_from_a_broken_file(
    monkeypatch: pytest.MonkeyPatch, said: str, kind: type[RuntimeError]
) -> None:
    def fail(*_: object, **_named: object) -> None:
        raise RuntimeError(said)

    monkeypatch.setattr(torchcodec.decoders, "decode_jpeg", fail)
    with pytest.raises(RuntimeError) as caught:
        torchcodec_calls.decode([b"a file"], torch.device("cpu"))
    assert caught.type is kind
