"""A network in OpenVINO: the runtime on CPUs."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import openvino
import torch
from torch import Tensor, nn

from patchserve_server.domain.images import ModelInputs
from patchserve_server.engine.backbone.runtime import BF16, FP32, INT8

_CPU = "CPU"
_HINTS = {FP32: "f32", BF16: "bf16", INT8: "f32"}  # of what is not quantized
_NATIVE_BF16 = ("amx_bf16", "avx512_bf16")
_TRACED_SIZE_PX = 32  # layers don't know the size of an image, and a small one is traced in less time


def has_bf16() -> bool:
    """Whether this processor multiplies bfloat16 itself.

    OpenVINO says so of every processor with AVX-512, and on most of those its imitation is slower than float32.
    """
    native = torch.cpu.get_capabilities()
    capabilities: list[str] = openvino.Core().get_property(_CPU, "OPTIMIZATION_CAPABILITIES")
    return "BF16" in capabilities and any(native.get(name) for name in _NATIVE_BF16)


class OpenVinoRuntime:
    """Takes images one by one, so that nothing depends, not even in the last bit, on the images beside it."""

    def __init__(self, model: openvino.Model, *, precision: str, threads: int) -> None:
        """Compiles.

        Args:
            model: (1, S, S, 3) uint8 -> feature maps (1, H, W, C) float32, as `converted` gives it.
            precision: FP32; BF16 where `has_bf16`; INT8 for a model that is quantized.
            threads: how many one image uses while there are few, and how many images use one each otherwise.
        """
        self.precision = precision
        self.device = torch.device("cpu")
        core = openvino.Core()

        def compiled(streams: int) -> openvino.CompiledModel:
            options = {
                "INFERENCE_PRECISION_HINT": _HINTS[precision],  # never left out: by default it is the fastest there is
                "INFERENCE_NUM_THREADS": threads,
                "NUM_STREAMS": streams,
                "ENABLE_CPU_PINNING": False,  # a second server on this machine would be pinned to the same cores
            }
            return core.compile_model(model, _CPU, options)

        self._threads = threads
        self._one_by_one = compiled(1)
        self._side_by_side = compiled(threads) if threads > 1 else self._one_by_one
        self._shapes = [tuple(output.shape)[1:] for output in self._one_by_one.outputs]  # (H, W, C) each
        self._under_way = 0
        self._lock = threading.Lock()

    def layers(self, inputs: ModelInputs) -> tuple[Tensor, ...]:
        layers = [torch.empty((len(inputs), *shape)) for shape in self._shapes]
        images = np.array(inputs, order="C")  # OpenVINO takes no read-only array
        with self._model(len(inputs)) as model:
            requests = [model.create_infer_request() for _ in images]
            for at, request in enumerate(requests):
                request.set_input_tensor(openvino.Tensor(images[at : at + 1], shared_memory=True))
                for position, layer in enumerate(layers):
                    request.set_output_tensor(position, openvino.Tensor(layer[at : at + 1].numpy(), shared_memory=True))
                request.start_async()
            for request in requests:
                request.wait()
        return tuple(layer.permute(0, 3, 1, 2) for layer in layers)

    @contextmanager
    def _model(self, images: int) -> Iterator[openvino.CompiledModel]:
        """Side by side where that leaves no thread idle: then none waits for another within an image."""
        with self._lock:
            self._under_way += images
            model = self._side_by_side if self._under_way >= self._threads else self._one_by_one
        try:
            yield model
        finally:
            with self._lock:
                self._under_way -= images


class _ChannelsLast(nn.Module):
    """Layers (B, H, W, C): the order that they are computed in, and that patch vectors have."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(layer.permute(0, 2, 3, 1) for layer in self.module(images))


def converted(module: nn.Module, size_px: int) -> openvino.Model:
    """A module on the CPU, (B, S, S, 3) uint8 -> feature maps (B, C, H, W) float32, as a model of one image."""
    example = torch.zeros((1, _TRACED_SIZE_PX, _TRACED_SIZE_PX, 3), dtype=torch.uint8)
    with warnings.catch_warnings(), torch.no_grad():
        # Tracing is deprecated in torch; exporting takes several times as long and gives the same.
        warnings.simplefilter("ignore", FutureWarning)
        traced = torch.jit.trace(_ChannelsLast(module), example, check_trace=False)  # type: ignore[no-untyped-call]
    return openvino.convert_model(traced, input=[1, size_px, size_px, 3])
