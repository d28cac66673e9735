"""Builds the detector of this process: backbone, device and precision from the settings."""

from __future__ import annotations

from pathlib import Path

import torch

from patchserve_server.engine.backbone.backbone import Backbone, SharedBackbone
from patchserve_server.engine.backbone.device_precision import on_device
from patchserve_server.engine.backbone.devices import device_memory_at_start, resolve_device
from patchserve_server.engine.backbone.loading import load_backbone
from patchserve_server.engine.backbone.runtime import FP32
from patchserve_server.engine.backbone.torch_runtime import TorchRuntime
from patchserve_server.engine.codec import OpenCodec
from patchserve_server.engine.codec_check import check_decoding
from patchserve_server.engine.detector import PatchCoreDetector
from patchserve_server.engine.map_difference import map_difference
from patchserve_server.engine.measurements import Measurements
from patchserve_server.engine.search.search_choice import choose_search


@device_memory_at_start()
def create_detector(
    *,
    backbone: str,
    layers: tuple[int, ...] = (),
    weights: Path | None = None,
    device: str = "auto",
    precision: str = FP32,
    cache: Path | None = None,
    threads: int | None = None,
    search_product: str = FP32,
    search_threads: int | None = None,
    measurements: Measurements | None = None,
    codec: OpenCodec | None = None,
) -> PatchCoreDetector:
    """Create a detector that is ready to use.

    Args:
        backbone: a key of BACKBONES; `timm:NAME`; or `auto`: `wide_resnet50_2`, or `efficientnet_lite2` with a warning.
        layers: the numbers of the used layers of `timm:NAME`.
        weights: a .pth, .pt or .safetensors file; None for the backbone's own weights.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        precision: on a CPU `fp32`, `bf16` or `int8`; on a GPU `fp32`, `tf32`, `bf16` or `fp16`; or `auto`: the fastest
            of them, but not int8, whose maps hardly change.
        cache: the folder for the quantized networks of int8; None keeps them in memory only.
        threads: CPU threads of the backbone and of torch; None for torch's default.
        search_product: `fp32`, `bf16`, `int8`, or `auto`: the fastest. Results are the same.
        search_threads: CPU threads of a search; None for the fastest number up to `threads`.
        measurements: of this processor; None measures without keeping anything.
        codec: opens the codec of the device, so that the detector takes JPEG files; None: it does not.

    Raises:
        StartupError: the backbone, the device, the precision or the codec is not available, the weights cannot be
            used, or the device has too little memory.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    resolved = resolve_device(device)
    opened = None if codec is None else codec(resolved)
    in_torch = load_backbone(backbone, weights, resolved, layers)
    measurements = measurements or Measurements(None)
    fastest = _in_precision(in_torch, precision, measurements, cache)
    search = choose_search(
        fastest.spec.feature_dim,
        fastest.device,
        measurements,
        product=search_product,
        threads=search_threads,
        cores=torch.get_num_threads(),
    )
    if opened is not None:
        check_decoding(opened, in_torch)
    return PatchCoreDetector(fastest, search, opened)


def _in_precision(
    in_torch: SharedBackbone[TorchRuntime], precision: str, measurements: Measurements, cache: Path | None
) -> Backbone:
    if in_torch.device.type != "cpu":
        return on_device(in_torch, precision, map_difference=map_difference, measurements=measurements)
    from patchserve_server.engine.backbone.precision import with_precision  # noqa: PLC0415 - a GPU needs no OpenVINO

    return with_precision(in_torch, precision, map_difference=map_difference, measurements=measurements, cache=cache)
