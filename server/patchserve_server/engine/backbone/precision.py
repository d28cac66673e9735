"""Chooses the fastest runtime that a precision allows on a CPU."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import openvino
import torch

from patchserve_server.domain.errors import StartupError
from patchserve_server.domain.input_options import InputShape
from patchserve_server.engine.backbone.architectures import BACKBONES
from patchserve_server.engine.backbone.backbone import Backbone, SharedBackbone
from patchserve_server.engine.backbone.backbone_spec import BackboneSpec
from patchserve_server.engine.backbone.int8.network_cache import NetworkCache
from patchserve_server.engine.backbone.int8.per_reference_backbone import PerReferenceBackbone
from patchserve_server.engine.backbone.int8.quantizer import Quantizer
from patchserve_server.engine.backbone.map_tolerance import TOLERANCE, MapDifference
from patchserve_server.engine.backbone.openvino_runtime import OpenVinoRuntime, convert_to_openvino, supports_bf16
from patchserve_server.engine.backbone.runtime import BF16, FP16, FP32, INT8, TF32, Runtime
from patchserve_server.engine.backbone.torch_runtime import TorchRuntime
from patchserve_server.engine.measurements import Measurements

AUTO = "auto"
_TRIED_STEPS = ((5, 7), (8, 6))
_EQUAL = 1e-4  # of the largest value

_log = logging.getLogger(__name__)


def with_precision(
    backbone: SharedBackbone[TorchRuntime],
    precision: str,
    *,
    map_difference: MapDifference,
    measurements: Measurements | None = None,
    cache: Path | None = None,
) -> Backbone:
    """The same backbone in the fastest runtime for this CPU.

    Args:
        backbone: in torch, on the CPU.
        precision: `fp32`; `bf16`; `int8`; or `auto`: bf16 if it is measured to be faster and maps differ by at
            most TOLERANCE, else fp32.
        map_difference: compares another precision with fp32, for `auto`.
        measurements: of this processor, for `auto`; None measures without keeping anything.
        cache: the folder for quantized networks; None keeps them in memory only.

    Raises:
        StartupError: the precision is unknown, or this processor does not support it.
    """
    measurements = measurements or Measurements(None)
    if precision in (TF32, FP16):
        raise StartupError(f"Precision {precision} needs a GPU. Use --precision {FP32} or --precision {AUTO}.")
    if precision not in (FP32, BF16, INT8, AUTO):
        raise StartupError(f'Unknown precision "{precision}". Use {FP32}, {BF16}, {INT8} or {AUTO}.')
    if precision == INT8:
        return _per_reference(backbone, cache)
    if not backbone.spec.is_checked and not _agrees(backbone):
        return _in_torch(backbone, precision)
    if precision == FP32:
        return _compile(backbone, FP32)
    return _in_bf16(backbone, precision, map_difference, measurements)


def _in_bf16(
    backbone: SharedBackbone[TorchRuntime], precision: str, map_difference: MapDifference, measurements: Measurements
) -> SharedBackbone[OpenVinoRuntime]:
    """In bf16; with `auto`, in fp32 if bf16 is not supported or not faster, or maps differ too much."""
    if not supports_bf16():
        if precision == BF16:
            raise StartupError(
                f"Precision {BF16} needs a processor with AVX-512 BF16 or AMX, and this one has neither. "
                f"Use --precision {FP32} or --precision {AUTO}."
            )
        _log.info("This processor does not support %s: using %s", BF16, FP32)
        return _compile(backbone, FP32)
    fast = _compile(backbone, BF16)
    if precision == AUTO:
        exact = _compile(backbone, FP32)
        times_ms = _times_ms(backbone.spec, {FP32: exact.runtime, BF16: fast.runtime}, measurements)
        _log.info("Backbone: %s takes %.1f ms for an image, %s %.1f ms", FP32, times_ms[FP32], BF16, times_ms[BF16])
        if times_ms[BF16] >= times_ms[FP32]:
            return exact
        difference = map_difference(backbone.spec, backbone.runtime, fast.runtime)
        if difference > TOLERANCE:
            _log.warning("Anomaly maps in %s differ by %.1f %% of their peak: using %s", BF16, 100 * difference, FP32)
            return exact
    return fast


def _times_ms(spec: BackboneSpec, runtimes: Mapping[str, Runtime], measurements: Measurements) -> Mapping[str, float]:
    """How long each runtime takes for one image."""
    image = np.random.default_rng(0).integers(0, 256, (1, *InputShape.square().sides_px, 3), dtype=np.uint8)
    runs = {name: functools.partial(runtime.layers, image) for name, runtime in runtimes.items()}
    return measurements.times_ms(measurement_name(spec, torch.get_num_threads()), runs)


def measurement_name(spec: BackboneSpec, threads: int) -> str:
    """The name of what is measured for `auto`: the time of one image in FP32 and BF16."""
    return f"backbone {spec.name}, {spec.feature_dim}, {threads} threads"


def _agrees(backbone: SharedBackbone[TorchRuntime]) -> bool:
    """Whether OpenVINO computes the same as torch, for two shapes of images that it was not converted with."""
    rng = np.random.default_rng(0)
    try:
        compiled = _compile(backbone, FP32).runtime
        for steps in _TRIED_STEPS:
            sides_px = [count * backbone.spec.step_px for count in steps]
            images = rng.integers(0, 256, (1, *sides_px, 3), dtype=np.uint8)
            pairs = zip(backbone.runtime.layers(images), compiled.layers(images), strict=True)
            if any(
                not torch.allclose(ours, theirs, rtol=0, atol=_EQUAL * float(ours.abs().max()))
                for ours, theirs in pairs
            ):
                return False
    except RuntimeError:  # of OpenVINO, which converts many operations but not all
        _log.debug("OpenVINO cannot run %s", backbone.spec.name, exc_info=True)
        return False
    return True


def _in_torch(backbone: SharedBackbone[TorchRuntime], precision: str) -> SharedBackbone[TorchRuntime]:
    if precision == BF16:
        raise StartupError(
            f"Precision {BF16} needs OpenVINO, which cannot run {backbone.spec.name} for every shape of images. "
            f"Use --precision {FP32}."
        )
    _log.warning("OpenVINO cannot run %s for every shape of images: using torch, which is slower", backbone.spec.name)
    return backbone


def _compile(backbone: SharedBackbone[TorchRuntime], precision: str) -> SharedBackbone[OpenVinoRuntime]:
    runtime = OpenVinoRuntime(_converted(backbone), precision=precision, threads=torch.get_num_threads())
    return SharedBackbone(backbone.identity, runtime)


def _per_reference(backbone: SharedBackbone[TorchRuntime], cache: Path | None) -> PerReferenceBackbone:
    recipe = backbone.spec.int8
    if recipe is None:
        quantized = " and ".join(name for name, spec in BACKBONES.items() if spec.int8 is not None)
        raise StartupError(
            f"Precision {INT8} is for {quantized}, not for {backbone.spec.name}. "
            f"Use --precision {FP32} or --precision {AUTO}."
        )
    quantizer = Quantizer(_converted(backbone), float_layers=recipe.float_layers)
    return PerReferenceBackbone(
        backbone.identity,
        recipe,
        quantizer.quantize,
        threads=torch.get_num_threads(),
        cache=None if cache is None else NetworkCache(cache),
    )


def _converted(backbone: SharedBackbone[TorchRuntime]) -> openvino.Model:
    return convert_to_openvino(backbone.runtime.module, backbone.spec.step_px)
