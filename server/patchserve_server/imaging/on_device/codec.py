"""The codec of a device: JPEG files to model inputs, and overlays to JPEG files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import accumulate, pairwise
from threading import Barrier
from typing import Final

import numpy as np
import torch
from torch import Tensor

from patchserve_server.domain.errors import StartupError
from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.input_options import InputShape
from patchserve_server.domain.inspection import HeatmapScale
from patchserve_server.domain.jpeg_file import DeviceCodecError, JpegFile
from patchserve_server.domain.overlay_drawing import OverlayDrawing
from patchserve_server.imaging.on_device import torchcodec_calls
from patchserve_server.imaging.on_device.lanes import Lanes
from patchserve_server.imaging.on_device.sample_files import decode_on_cpu, sample_files
from patchserve_server.imaging.on_device.upright import upright
from patchserve_server.imaging.resize_weights import bilinear

MAX_DECODED_BYTES: Final = 2**27
"""Files are decoded in parts of at most so many bytes of pixels; a larger one alone."""
_WARMED_THREADS: Final = 4  # two score, and two draw
_WARM_UP_TIMEOUT_S: Final = 120.0
_MAX_FAILURES: Final = 3  # of files that are decoded together
_CHANNELS: Final = 3


def open_codec(device: torch.device) -> TorchCodec:
    """The codec of a GPU, after it has decoded and encoded once.

    Raises:
        StartupError: the device is a CPU, or torchcodec cannot be used on it.
    """
    if device.type == "cpu":
        raise StartupError(
            "--decode device needs a GPU, and this server uses the CPU. Use --decode cpu; or --device cuda, which says "
            "why a GPU cannot be used."
        )
    torchcodec_calls.import_torchcodec()
    with _starting(device):
        codec = TorchCodec(device)
        codec.try_out()
    return codec


@contextmanager
def _starting(device: torch.device) -> Iterator[None]:
    """Says why the server cannot start, if the device does not decode in the block."""
    try:
        yield
    except (DeviceCodecError, RuntimeError) as error:
        raise StartupError(
            f"--decode device: torchcodec cannot decode on {device} ({torchcodec_calls.reason_of(error)}). It must be "
            "built for CUDA and for this torch, and the device needs free memory. Or use --decode cpu."
        ) from error


class TorchCodec:
    """Implements `engine.codec.Codec` with torchcodec. In tests it runs on the CPU, in the same way."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._lanes = Lanes(device)

    @torch.inference_mode()
    def decode(self, files: Sequence[JpegFile], shape: InputShape) -> Sequence[Tensor | DeviceCodecError]:
        lane, found = self._lanes.own, dict[int, Tensor | DeviceCodecError]()
        with lane.entered():
            for part in _parts(files):
                decoded = dict(zip(part, self._decoded([files[number] for number in part]), strict=True))
                for numbers in _of_one_size(files, decoded):
                    stored = torch.cat([_taken(decoded, number) for number in numbers])  # (B * 3, H, W)
                    scaled = lane.scaler.scale(upright(stored, files[numbers[0]].orientation), shape.size_px, bilinear)
                    inputs = scaled.view(-1, _CHANNELS, *shape.sides_px).permute(0, 2, 3, 1).unbind()
                    found |= dict(zip(numbers, inputs, strict=True))
                found |= decoded  # what is left of it are errors
        results = [found[number] for number in range(len(files))]
        lane.hand_over([one for one in results if isinstance(one, Tensor)])
        return results

    @torch.inference_mode()
    def draw(self, drawings: Sequence[OverlayDrawing]) -> Sequence[bytes | DeviceCodecError]:
        drawn = list[Tensor | DeviceCodecError]()
        with self._lanes.own.entered():
            for part in _parts([drawing.file for drawing in drawings]):
                drawn += self._drawn([drawings[number] for number in part])
            return _to_bytes(drawn)

    def warm_up(self) -> None:
        begun = Barrier(_WARMED_THREADS)  # what is in use is not shared, so that each thread makes its own

        def run() -> None:
            begun.wait(_WARM_UP_TIMEOUT_S)
            self.try_out()

        with _starting(self._device), ThreadPoolExecutor(_WARMED_THREADS) as pool:
            for running in [pool.submit(run) for _ in range(_WARMED_THREADS)]:
                running.result()

    def try_out(self) -> None:
        """Decodes and draws once.

        Raises:
            DeviceCodecError: it cannot do so with an ordinary file.
        """
        shape = InputShape.square()
        files = sample_files(shape)
        drawings = [
            OverlayDrawing(files[0], np.zeros(shape.sides_px, np.uint8), scale, files[0].size_px)
            for scale in HeatmapScale
        ]
        for result in (self.decode(files, shape)[0], *self.draw(drawings)):
            if isinstance(result, DeviceCodecError):
                raise result

    def samples(self, shape: InputShape) -> tuple[ModelInputs, ModelInputs]:
        files = sample_files(shape)
        decoded = zip(files, self.decode(files, shape), strict=True)
        pairs = [(decode_on_cpu(file), one.cpu().numpy()) for file, one in decoded if isinstance(one, Tensor)]
        exact, found = (np.stack(pixels) for pixels in zip(*pairs, strict=True))
        return exact, found

    def _decoded(self, files: Sequence[JpegFile]) -> list[Tensor | DeviceCodecError]:
        """The pixels of each file (3, H, W) as they are stored."""
        try:
            decoded = torchcodec_calls.decode([file.data for file in files], self._device)
        except RuntimeError as error:  # of one file, for all of them
            if len(files) == 1:  # also if the device has too little memory for it: the CPU has
                return [DeviceCodecError(torchcodec_calls.reason_of(error))]
            if isinstance(error, torch.OutOfMemoryError):
                raise
            return self._decoded_alone(files)
        return [_checked(pixels, file) for pixels, file in zip(decoded, files, strict=True)]

    def _decoded_alone(self, files: Sequence[JpegFile]) -> list[Tensor | DeviceCodecError]:
        """The same, file by file. With each error the library drops its decoder, and the next one takes long to make.

        So nobody's files may cause many of them: after a few, what is left is for the CPU.
        """
        found, failures = list[Tensor | DeviceCodecError](), 0
        for file in files:
            if failures == _MAX_FAILURES:
                found.append(DeviceCodecError("Too many files beside it cannot be decoded."))
                continue
            found += self._decoded([file])
            failures += isinstance(found[-1], DeviceCodecError)
        return found

    def _drawn(self, drawings: Sequence[OverlayDrawing]) -> list[Tensor | DeviceCodecError]:
        """The file of each overlay, (N,) uint8 on the device."""
        try:
            images = self._decoded([drawing.file for drawing in drawings])
        except torch.OutOfMemoryError as error:
            return [DeviceCodecError(str(error)) for _ in drawings]
        return [self._drawn_on(image, drawing) for image, drawing in zip(images, drawings, strict=True)]

    def _drawn_on(self, image: Tensor | DeviceCodecError, drawing: OverlayDrawing) -> Tensor | DeviceCodecError:
        if isinstance(image, DeviceCodecError):
            return image
        try:
            overlay = self._lanes.own.painter.draw(upright(image, drawing.file.orientation), drawing)
            return torchcodec_calls.encode(overlay)
        except Exception as error:  # noqa: BLE001 - too little memory, or too large a side, for whoever does it
            return DeviceCodecError(torchcodec_calls.reason_of(error))


def _parts(files: Sequence[JpegFile]) -> Iterator[Sequence[int]]:
    """The numbers of the files, as many together as may be decoded at once."""
    part, nbytes = list[int](), 0
    for number, file in enumerate(files):
        file_nbytes = _CHANNELS * file.size_px[0] * file.size_px[1]
        if part and nbytes + file_nbytes > MAX_DECODED_BYTES:
            yield part
            part, nbytes = [], 0
        part.append(number)
        nbytes += file_nbytes
    if part:
        yield part


def _of_one_size(files: Sequence[JpegFile], decoded: Mapping[int, Tensor | DeviceCodecError]) -> list[list[int]]:
    """The numbers of files that are decoded, those together that are scaled and turned in the same way."""
    alike = dict[tuple[object, ...], list[int]]()
    for number, pixels in decoded.items():
        if isinstance(pixels, Tensor):
            alike.setdefault((files[number].stored_size_px, files[number].orientation), []).append(number)
    return list(alike.values())


def _taken(decoded: dict[int, Tensor | DeviceCodecError], number: int) -> Tensor:
    """Out of it, so that its memory is free as soon as it is not needed."""
    pixels = decoded.pop(number)
    if isinstance(pixels, DeviceCodecError):
        raise pixels
    return pixels


def _checked(pixels: Tensor, file: JpegFile) -> Tensor | DeviceCodecError:
    width, height = file.stored_size_px
    if pixels.shape != (_CHANNELS, height, width):
        return DeviceCodecError(f"It has {tuple(pixels.shape)} pixels for the device.")
    return pixels


def _to_bytes(drawn: Sequence[Tensor | DeviceCodecError]) -> list[bytes | DeviceCodecError]:
    """The files in main memory, in one copy."""
    files = [one for one in drawn if isinstance(one, Tensor)]
    joined = torch.cat(files).cpu().numpy().tobytes() if files else b""
    stops = accumulate((len(file) for file in files), initial=0)
    data = (joined[start:stop] for start, stop in pairwise(stops))
    return [next(data) if isinstance(one, Tensor) else one for one in drawn]
