"""The backbone on a GPU: passes of fixed sizes, each captured before the first request."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.input_options import InputShape
from patchserve_server.engine.backbone.graphs import Graphs, Pass
from patchserve_server.engine.backbone.runtime import BF16, FP16, FP32, TF32
from patchserve_server.engine.backbone.torch_runtime import NormalizedLayers
from patchserve_server.engine.backbone.transfers import Transfers

PASS_SIZES: Final = (1, 2, 4, 8, 16, 32, 64)
"""A pass with fewer images is filled up, so that no number of images is new to the device."""

DTYPES: Final = {FP32: torch.float32, TF32: torch.float32, FP16: torch.float16, BF16: torch.bfloat16}
"""Of each precision, the most exact first."""


@dataclass(frozen=True, slots=True, eq=False)
class _Captured:
    images: Tensor  # (N, h, w, 3) uint8, what the pass reads
    run: Pass


class DeviceRuntime:
    """Implements `Runtime` for a GPU. In tests it runs on the CPU, in the same way."""

    def __init__(
        self,
        module: NormalizedLayers,
        precision: str,
        graphs: Graphs,
        transfers: Transfers,
        *,
        sizes: Sequence[int] = PASS_SIZES,
    ) -> None:
        """Captures nothing yet.

        Args:
            module: on the device, in the number format of the precision, see `in_precision`.
            precision: FP32, TF32, BF16 or FP16.
            graphs: how passes are repeated.
            transfers: between main memory and the device.
            sizes: of passes, ascending.
        """
        self._sizes = tuple(sizes)
        self.module = module
        self.precision = precision
        self.transfers = transfers
        self._graphs = graphs
        self._captured: dict[tuple[int, ...], _Captured] = {}
        self._running = threading.Lock()  # of what the captured passes read and write

    @property
    def device(self) -> torch.device:
        return self.module.get_buffer("_mean").device

    @property
    def nbytes(self) -> int:
        return 0

    @property
    def streams(self) -> int:
        return 0  # its buffers are in the memory of the device

    @property
    def largest_pass(self) -> int:
        return self._sizes[-1]

    def sizes_up_to(self, images: int) -> list[int]:
        """The sizes of passes of up to this many images."""
        return [size for size in self._sizes if size <= self._size_for(images)]

    @torch.inference_mode()
    def warm_up(self, shape: InputShape, images: int) -> None:
        """Captures the passes for up to this many images of this shape."""
        for size in self.sizes_up_to(images):
            self._capture((size, *shape.sides_px, 3))

    @torch.inference_mode()
    def layers(self, inputs: ModelInputs) -> tuple[Tensor, ...]:
        (images,) = self.transfers.to_device([inputs])
        return self.layers_of(images)

    @torch.inference_mode()
    def layers_of(self, images: Tensor) -> tuple[Tensor, ...]:
        """The same of images (B, h, w, 3) uint8 that are on the device."""
        parts = [self._pass(part) for part in torch.split(images, self._sizes[-1])]
        return parts[0] if len(parts) == 1 else tuple(torch.cat(layers) for layers in zip(*parts, strict=True))

    def _pass(self, images: Tensor) -> tuple[Tensor, ...]:
        captured = self._capture((self._size_for(len(images)), *images.shape[1:]))
        with self._running:
            # What follows the images is left from earlier ones: no image changes the layers of another.
            captured.images[: len(images)].copy_(images)
            return tuple(layer[: len(images)].to(torch.float32, copy=True) for layer in captured.run())

    def _size_for(self, images: int) -> int:
        return next((size for size in self._sizes if size >= images), self._sizes[-1])

    def _capture(self, shape: tuple[int, ...]) -> _Captured:
        if (captured := self._captured.get(shape)) is not None:
            return captured
        with self._running:
            if shape not in self._captured:
                images = torch.zeros(shape, dtype=torch.uint8, device=self.device)
                self._captured[shape] = _Captured(images, self._graphs.capture(lambda: self._computed(images)))
            return self._captured[shape]

    def _computed(self, images: Tensor) -> tuple[Tensor, ...]:
        with _convolutions_in(self.precision):  # also where a pass runs without a graph
            layers: tuple[Tensor, ...] = self.module(images)
            return layers


def in_precision(module: nn.Module, precision: str) -> NormalizedLayers:
    """A copy of a module in fp32 whose network computes in another number format. The input is scaled in fp32."""
    if not isinstance(module, NormalizedLayers):
        raise TypeError(f"{type(module).__name__} does not scale its input.")
    dtype = DTYPES[precision]
    computing = NormalizedLayers(copy.deepcopy(module.part).to(dtype), module.spec, dtype)
    device = module.get_buffer("_mean").device
    return computing.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload, no-any-return]


@contextmanager
def _convolutions_in(precision: str) -> Iterator[None]:
    """Lets convolutions use TF32 in that precision. Products of searches are not convolutions, and stay exact."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = precision == TF32
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
