"""PatchCore: backbone, memory bank, search, scores and calibration. The only layer that knows torch and OpenVINO."""

from __future__ import annotations

from pathlib import Path

import torch

from patchserve_server.engine.backbone.devices import resolve_device
from patchserve_server.engine.backbone.network import open_network
from patchserve_server.engine.backbone.precision import with_precision
from patchserve_server.engine.backbone.runtime import FP32
from patchserve_server.engine.detector import PatchCoreDetector

__all__ = ["PatchCoreDetector", "create_detector"]


def create_detector(
    *,
    backbone: str,
    weights: Path | None = None,
    device: str = "auto",
    precision: str = FP32,
    cache: Path | None = None,
    threads: int | None = None,
) -> PatchCoreDetector:
    """A detector that is ready to run.

    Args:
        backbone: `wide_resnet50_2`, `efficientnet_lite2`, or `auto`: the first, else the second with a warning.
        weights: a .pth, .pt or .safetensors file; None for the backbone's own.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        precision: `fp32`, `bf16`, `int8`, or `auto`: bf16 where the processor has it and maps stay what they are.
        cache: the folder that keeps the networks of int8 over a restart; None keeps none.
        threads: how many threads the backbone, a search and torch use on the CPU; None leaves torch's choice.

    Raises:
        StartupError: no such backbone, device or precision, or no sound weights.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    network = with_precision(open_network(backbone, weights, resolve_device(device)), precision, cache)
    return PatchCoreDetector(network)
