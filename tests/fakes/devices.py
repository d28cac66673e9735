"""The engine of a GPU, run on the CPU: the same passes, the same search, the same transfers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fakes.images import encoded
from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.input_options import InputShape
from patchserve_server.domain.jpeg_file import DeviceCodecError, JpegFile
from patchserve_server.domain.overlay_drawing import OverlayDrawing
from patchserve_server.engine.backbone.backbone import SharedBackbone
from patchserve_server.engine.backbone.device_runtime import DeviceRuntime, in_precision
from patchserve_server.engine.backbone.graphs import Pass
from patchserve_server.engine.backbone.loading import load_backbone
from patchserve_server.engine.backbone.torch_runtime import TorchRuntime
from patchserve_server.engine.backbone.transfers import DeviceTransfers
from patchserve_server.engine.codec import Codec
from patchserve_server.engine.detector import PatchCoreDetector
from patchserve_server.imaging.on_device import TorchCodec

CPU = torch.device("cpu")
SIZES = (1, 2, 4)


@dataclass
class CountedTransfers:
    """Counts copies, and says which operations of the device ran between them."""

    inner: DeviceTransfers = field(default_factory=lambda: DeviceTransfers(CPU))
    to_device_count: int = 0
    to_host_count: int = 0
    fails_at: int = 0  # the copy to the host with this number has too little memory

    def to_device(self, arrays: Sequence[NDArray[np.uint8]]) -> list[Tensor]:
        self.to_device_count += 1
        return self.inner.to_device(arrays)

    def to_host(self, tensors: Sequence[Tensor]) -> list[NDArray[np.float32]]:
        self.to_host_count += 1
        if self.to_host_count == self.fails_at:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return self.inner.to_host(tensors)


@dataclass
class CountedGraphs:
    """Counts what is captured. As of a CUDA graph, the results of a pass are always in the same memory."""

    captured: int = 0
    fails_with: Exception | None = None  # the next run of a pass

    def capture(self, run: Pass) -> Pass:
        self.captured += 1
        results = run()

        def checked() -> tuple[Tensor, ...]:
            if self.fails_with is not None:
                failure, self.fails_with = self.fails_with, None
                raise failure
            for result, found in zip(results, run(), strict=True):
                result.copy_(found)
            return results

        return checked


@dataclass
class FakeDevice:
    """A detector whose backbone has the runtime of a GPU."""

    detector: PatchCoreDetector
    runtime: DeviceRuntime
    graphs: CountedGraphs
    transfers: CountedTransfers


def fake_device(
    backbone: SharedBackbone[TorchRuntime], precision: str = "fp32", codec: Codec | None = None
) -> FakeDevice:
    graphs, transfers = CountedGraphs(), CountedTransfers()
    module = in_precision(backbone.runtime.module, precision)
    runtime = DeviceRuntime(module, precision, graphs, transfers, sizes=SIZES)
    detector = PatchCoreDetector(SharedBackbone(backbone.identity, runtime), codec=codec)
    return FakeDevice(detector, runtime, graphs, transfers)


def device_with(codec: Codec) -> FakeDevice:
    """One with real weights, that takes files."""
    return fake_device(load_backbone("efficientnet_lite2", None, CPU), codec=codec)


def jpeg_file(image: Image.Image, orientation: int = 1, **options: object) -> JpegFile:
    """An image as a file that a device decodes. Its quality and subsampling: as the options of Pillow say."""
    return JpegFile(encoded(image, "JPEG", **options), image.size, orientation)


def codec_on_cpu() -> TorchCodec:
    """The codec of a GPU with the pixels of the CPU: on it, the same library decodes as Pillow does."""
    return TorchCodec(CPU)


@dataclass
class CountedCodec:
    """The same, and counts its files."""

    inner: TorchCodec = field(default_factory=codec_on_cpu)
    decoded: list[int] = field(default_factory=list)  # the files of each call
    warmed: int = 0
    fails_with: Exception | None = None  # the next call

    def decode(self, files: Sequence[JpegFile], shape: InputShape) -> Sequence[Tensor | DeviceCodecError]:
        self.decoded.append(len(files))
        if self.fails_with is not None:
            failure, self.fails_with = self.fails_with, None
            raise failure
        return self.inner.decode(files, shape)

    def draw(self, drawings: Sequence[OverlayDrawing]) -> Sequence[bytes | DeviceCodecError]:
        return self.inner.draw(drawings)

    def warm_up(self) -> None:
        self.warmed += 1

    def samples(self, shape: InputShape) -> tuple[ModelInputs, ModelInputs]:
        return self.inner.samples(shape)


class _Waits(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Operations that make a program wait for its GPU: their results decide what comes next."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found = list[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().partition(".")[0].removeprefix("aten::")
        selects_by_mask = name in ("index", "index_put", "index_put_") and any(
            isinstance(one, Tensor) and one.dtype is torch.bool for one in args[1]
        )
        if selects_by_mask or name in {
            "_local_scalar_dense",
            "nonzero",
            "masked_select",
            "unique",
            "bincount",
            "equal",
        }:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@contextmanager
def waits() -> Iterator[list[str]]:
    """The names of such operations in the block."""
    with _Waits() as mode:
        yield mode.found
