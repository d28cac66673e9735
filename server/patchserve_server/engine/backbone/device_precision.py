"""The precision of a backbone on a GPU."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Mapping

import numpy as np
import torch

from patchserve_server.domain.errors import StartupError
from patchserve_server.domain.input_options import InputShape
from patchserve_server.engine.backbone.backbone import SharedBackbone
from patchserve_server.engine.backbone.backbone_spec import BackboneSpec
from patchserve_server.engine.backbone.device_runtime import DTYPES, DeviceRuntime, in_precision
from patchserve_server.engine.backbone.devices import release_memory, synchronize
from patchserve_server.engine.backbone.graphs import CudaGraphs, EagerGraphs
from patchserve_server.engine.backbone.map_tolerance import TOLERANCE, MapDifference
from patchserve_server.engine.backbone.runtime import FP32, INT8, Runtime
from patchserve_server.engine.backbone.torch_runtime import TorchRuntime
from patchserve_server.engine.backbone.transfers import DeviceTransfers
from patchserve_server.engine.measurements import Measurements

AUTO = "auto"

_MEASURED_IMAGES = 8
_AS_FAST = 1.1

_log = logging.getLogger(__name__)


def on_device(
    backbone: SharedBackbone[TorchRuntime],
    precision: str,
    *,
    map_difference: MapDifference,
    measurements: Measurements,
) -> SharedBackbone[DeviceRuntime]:
    """The same backbone in passes of fixed sizes.

    Args:
        backbone: in torch, on a CUDA device; in tests on the CPU.
        precision: `fp32`, `tf32`, `bf16`, `fp16`; or `auto`: the fastest whose maps differ from those in fp32 by at
            most TOLERANCE.
        map_difference: compares a precision with fp32, for `auto`.
        measurements: of this device, for `auto`.

    Raises:
        StartupError: the precision is not one of these.
    """
    if precision == INT8:
        raise StartupError(f"Precision {INT8} runs on the CPU only. Use --device cpu, or --precision {AUTO}.")
    if precision not in (*DTYPES, AUTO):
        raise StartupError(f'Unknown precision "{precision}". Use {", ".join(DTYPES)}, {INT8} or {AUTO}.')
    if precision != AUTO:
        return _in_precision(backbone, precision)
    every = {name: _in_precision(backbone, name) for name in DTYPES}
    times_ms = _times_ms(backbone.spec, {name: one.runtime for name, one in every.items()}, measurements)
    for name in _by_preference(times_ms):
        difference = 0.0 if name == FP32 else map_difference(backbone.spec, backbone.runtime, every[name].runtime)
        if difference <= TOLERANCE:  # not if it is not a number
            shown = ", ".join(f"{each} {ms:.2f} ms" for each, ms in times_ms.items())
            _log.info("Backbone: using %s (%d images: %s)", name, _MEASURED_IMAGES, shown)
            chosen = every.pop(name)
            every.clear()
            release_memory()  # of what the others captured
            return chosen
        _log.warning("Anomaly maps in %s differ by %.1f %% of their peak: it is not used", name, 100 * difference)
    return every[FP32]


def _by_preference(times_ms: Mapping[str, float]) -> Iterator[str]:
    """The fastest first. Of those that are as fast but for the noise of a measurement, the most exact first.

    So that every start, and every device of a server, takes the same: a precision serves the banks that it made.
    """
    left = dict(times_ms)
    while left:
        limit_ms = _AS_FAST * min(left.values())
        chosen = next(name for name in DTYPES if name in left and left[name] <= limit_ms)
        del left[chosen]
        yield chosen


def _in_precision(backbone: SharedBackbone[TorchRuntime], precision: str) -> SharedBackbone[DeviceRuntime]:
    device = backbone.device
    graphs = CudaGraphs(device) if device.type == "cuda" else EagerGraphs()
    module = in_precision(backbone.runtime.module, precision)
    return SharedBackbone(backbone.identity, DeviceRuntime(module, precision, graphs, DeviceTransfers(device)))


def _times_ms(spec: BackboneSpec, runtimes: Mapping[str, Runtime], measurements: Measurements) -> Mapping[str, float]:
    """How long each runtime takes for a few images."""
    sides_px = InputShape.square().sides_px
    images = np.random.default_rng(0).integers(0, 256, (_MEASURED_IMAGES, *sides_px, 3), dtype=np.uint8)

    @torch.inference_mode()
    def run(runtime: Runtime) -> None:
        runtime.layers(images)
        synchronize(runtime.device)

    device = next(iter(runtimes.values())).device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    runs = {each: functools.partial(run, runtime) for each, runtime in runtimes.items()}
    return measurements.times_ms(f"backbone {spec.name}, {spec.feature_dim}, on {name}", runs)
