"""The backbone in OpenVINO: the runtime on CPUs."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import openvino
import torch
from torch import Tensor, nn
from torch.jit._trace import TracerWarning

from patchserve_server.domain.images import ModelInputs
from patchserve_server.engine.backbone.runtime import BF16, CPU_PASS, FP32, INT8

_CPU = "CPU"
_PRECISION_HINTS = {FP32: "f32", BF16: "bf16", INT8: "f32"}  # for the operations that are not quantized
_BF16_INSTRUCTIONS = ("amx_bf16", "avx512_bf16")
_TRACED_STEPS = (2, 3)  # the layers accept any image shape, and a small image is traced faster


def supports_bf16() -> bool:
    """Whether this processor has instructions that multiply bfloat16.

    OpenVINO reports BF16 on every processor with AVX-512. Without the instructions it emulates them, which is usually
    slower than float32.
    """
    available = torch.cpu.get_capabilities()
    capabilities: list[str] = openvino.Core().get_property(_CPU, "OPTIMIZATION_CAPABILITIES")
    return "BF16" in capabilities and any(available.get(name) for name in _BF16_INSTRUCTIONS)


def stream_count(threads: int) -> int:
    """How many streams a runtime has in its two models, each with buffers of its own for one image."""
    return threads + 1 if threads > 1 else 1


class OpenVinoRuntime:
    """Runs each image separately, so that its features are exactly the same in every batch."""

    def __init__(self, model: openvino.Model, *, precision: str, threads: int, nbytes: int = 0) -> None:
        """Compile the model.

        Args:
            model: (1, H, W, 3) uint8, of one shape or of any, -> feature maps, each (1, h, w, C) float32.
            precision: FP32; BF16 if `supports_bf16`; INT8 for a quantized model.
            threads: the CPU threads. Each image uses all of them if few images run at a time, otherwise one.
            nbytes: the main memory of this runtime for one reference; 0 if references share it.
        """
        self.precision = precision
        self.device = torch.device("cpu")
        self.nbytes = nbytes
        self.streams = stream_count(threads)
        self.largest_pass = CPU_PASS
        core = openvino.Core()

        def compile_for(streams: int) -> openvino.CompiledModel:
            options = {
                "INFERENCE_PRECISION_HINT": _PRECISION_HINTS[precision],  # else OpenVINO chooses the fastest
                "INFERENCE_NUM_THREADS": threads,
                "NUM_STREAMS": streams,
                "ENABLE_CPU_PINNING": False,  # pinning would put two servers on the same cores
            }
            return core.compile_model(model, _CPU, options)

        self._threads = threads
        self._latency_model = compile_for(streams=1)
        self._throughput_model = compile_for(streams=threads) if threads > 1 else self._latency_model
        self._images_in_flight = 0
        self._lock = threading.Lock()

    def layers(self, inputs: ModelInputs) -> tuple[Tensor, ...]:
        images = np.array(inputs, order="C")  # OpenVINO accepts no read-only array
        with self._model_for(len(inputs)) as model:
            requests = [model.create_infer_request() for _ in images]
            for index, request in enumerate(requests):
                image = slice(index, index + 1)
                request.set_input_tensor(openvino.Tensor(images[image], shared_memory=True))
                request.start_async()
            for request in requests:
                request.wait()
        outputs = range(len(model.outputs))
        layers = (
            np.concatenate([request.get_output_tensor(output).data for request in requests]) for output in outputs
        )
        return tuple(torch.from_numpy(layer).permute(0, 3, 1, 2) for layer in layers)  # each (B, C, h, w)

    @contextmanager
    def _model_for(self, image_count: int) -> Iterator[openvino.CompiledModel]:
        """The throughput model if the images in flight keep every thread busy, else the latency model."""
        with self._lock:
            self._images_in_flight += image_count
            is_busy = self._images_in_flight >= self._threads
        try:
            yield self._throughput_model if is_busy else self._latency_model
        finally:
            with self._lock:
                self._images_in_flight -= image_count


class _ChannelsLast(nn.Module):
    """Feature maps as (B, H, W, C): the order in which they are computed, and the order of patch vectors."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(layer.permute(0, 2, 3, 1) for layer in self.module(images))


def convert_to_openvino(module: nn.Module, step_px: int) -> openvino.Model:
    """Convert a module on the CPU to an OpenVINO model for one image.

    Args:
        module: (B, H, W, 3) uint8 -> feature maps, each (B, C, h, w) float32.
        step_px: H and W are multiples of it.

    Returns:
        A model of any shape: (1, H, W, 3) uint8 -> feature maps, each (1, h, w, C) float32.
    """
    height_px, width_px = (steps * step_px for steps in _TRACED_STEPS)
    example = torch.zeros((1, height_px, width_px, 3), dtype=torch.uint8)
    with warnings.catch_warnings(), torch.no_grad():
        # torch has deprecated tracing. Its successor, export, gives the same model and takes several times as long.
        warnings.simplefilter("ignore", FutureWarning)
        # Of conditions on the shape of an image. Ours hold for every shape, those of other networks are tried.
        warnings.simplefilter("ignore", TracerWarning)
        traced = torch.jit.trace(_ChannelsLast(module), example, check_trace=False)  # type: ignore[no-untyped-call]
    # Measured: features and speed of a model of any shape are those of models that are made for one shape.
    return openvino.convert_model(traced, input=openvino.PartialShape([1, -1, -1, 3]))
