"""A network in OpenVINO: the runtime on CPUs."""

from __future__ import annotations

import sys
import warnings

import numpy as np
import torch
from torch import Tensor, nn

from patchserve_server.domain.images import ModelInputs
from patchserve_server.engine.runtime import BF16, FP32

# OpenVINO tells its maker over the network of every import and conversion, unless this module is not to be had.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino  # noqa: E402

_CPU = "CPU"
_HINTS = {FP32: "f32", BF16: "bf16"}
_NATIVE_BF16 = ("amx_bf16", "avx512_bf16")
_TRACED_SIZE_PX = 32  # layers don't know the size of a picture, and a small one is traced in less time


def has_bf16() -> bool:
    """Whether this processor multiplies bfloat16 itself.

    OpenVINO says so of every processor with AVX-512, and on most of those its imitation is slower than float32.
    """
    native = torch.cpu.get_capabilities()
    capabilities: list[str] = openvino.Core().get_property(_CPU, "OPTIMIZATION_CAPABILITIES")
    return "BF16" in capabilities and any(native.get(name) for name in _NATIVE_BF16)


class OpenVinoRuntime:
    """Takes pictures one by one, so that nothing depends, not even in the last bit, on the pictures beside it."""

    def __init__(self, module: nn.Module, *, size_px: int, precision: str, threads: int) -> None:
        """Converts and compiles.

        Args:
            module: (B, S, S, 3) uint8 -> feature maps (B, C, H, W) float32, on the CPU.
            size_px: S.
            precision: FP32, or BF16 where `has_bf16`.
            threads: how many one picture uses. There is one stream: callers take turns rather than share the cores.
        """
        self.precision = precision
        self.device = torch.device("cpu")
        options = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],  # never left out: by default it is the fastest there is
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # a second server on this machine would be pinned to the same cores
        }
        self._compiled = openvino.Core().compile_model(_converted(module, size_px), _CPU, options)
        self._shapes = [tuple(output.shape)[1:] for output in self._compiled.outputs]  # (H, W, C) each

    def layers(self, inputs: ModelInputs) -> tuple[Tensor, ...]:
        layers = [torch.empty((len(inputs), *shape)) for shape in self._shapes]
        request = self._compiled.create_infer_request()
        for at in range(len(inputs)):
            picture = np.array(inputs[at : at + 1], order="C")  # OpenVINO takes no read-only array
            request.set_input_tensor(openvino.Tensor(picture, shared_memory=True))
            for position, layer in enumerate(layers):
                request.set_output_tensor(position, openvino.Tensor(layer[at : at + 1].numpy(), shared_memory=True))
            request.infer()
        return tuple(layer.permute(0, 3, 1, 2) for layer in layers)


class _ChannelsLast(nn.Module):
    """Layers (B, H, W, C): the order that they are computed in, and that patch vectors have."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, pictures: Tensor) -> tuple[Tensor, ...]:
        return tuple(layer.permute(0, 2, 3, 1) for layer in self.module(pictures))


def _converted(module: nn.Module, size_px: int) -> openvino.Model:
    example = torch.zeros((1, _TRACED_SIZE_PX, _TRACED_SIZE_PX, 3), dtype=torch.uint8)
    with warnings.catch_warnings(), torch.no_grad():
        # Tracing is deprecated in torch; exporting takes several times as long and gives the same.
        warnings.simplefilter("ignore", FutureWarning)
        traced = torch.jit.trace(_ChannelsLast(module), example, check_trace=False)  # type: ignore[no-untyped-call]
    return openvino.convert_model(traced, input=[1, size_px, size_px, 3])
