"""The fastest runtime of a network that a precision allows."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import cv2
import numpy as np
import openvino
import torch

from patchserve_server.domain.errors import StartupError
from patchserve_server.domain.images import AnomalyMap, ModelInputs
from patchserve_server.domain.reference import ReferenceOptions
from patchserve_server.engine.backbone.int8.network_cache import NetworkCache
from patchserve_server.engine.backbone.int8.quantizer import Quantizer
from patchserve_server.engine.backbone.network import Network
from patchserve_server.engine.backbone.openvino_runtime import OpenVinoRuntime, converted, has_bf16
from patchserve_server.engine.backbone.runtime import BF16, FP32, INT8
from patchserve_server.engine.patchcore.pipeline import Pipeline
from patchserve_server.engine.search.bank_index import BankIndex
from patchserve_server.engine.search.parallel import ParallelSearch

AUTO = "auto"
TOLERANCE = 0.1  # docs/accuracy.md: what a map in bfloat16 may differ, as a share of its peak

_log = logging.getLogger(__name__)


def with_precision(network: Network, precision: str, cache: Path | None = None) -> Network:
    """A network as torch opened it, in what runs it fastest on its device.

    Args:
        network: on the CPU or a CUDA device.
        precision: `fp32`; `bf16`; `int8`; or `auto`, which is bf16 where the processor has it and maps stay what they
            are, else fp32.
        cache: the folder that keeps the networks of int8; None keeps none.

    Raises:
        StartupError: no such precision, or not on this device.
    """
    if precision not in (FP32, BF16, INT8, AUTO):
        raise StartupError(f'There is no precision "{precision}": use {FP32}, {BF16}, {INT8} or {AUTO}.')
    if network.device.type != "cpu":
        if precision in (BF16, INT8):
            raise StartupError(f"Precision {precision} is for the CPU: use --device cpu, or --precision {FP32}.")
        return network
    if precision == INT8:
        return dataclasses.replace(network, quantizer=_quantizer(network, cache))
    native = precision != FP32 and has_bf16()
    if precision == BF16 and not native:
        raise StartupError(
            f"Precision {BF16} was asked for, but this processor does not compute in it (AVX-512 BF16 or AMX): "
            f"use --precision {FP32} or --precision {AUTO}."
        )
    if precision == AUTO and not native:
        _log.info("This processor does not compute in %s: running %s", BF16, FP32)
    if not native:
        return _compiled(network, FP32)
    fast = _compiled(network, BF16)
    if precision == AUTO and (difference := map_difference(network, fast)) > TOLERANCE:
        _log.warning("In %s maps differ by %.1f %% of their peak: running %s", BF16, 100 * difference, FP32)
        return _compiled(network, FP32)
    return fast


def map_difference(exact: Network, other: Network) -> float:
    """How far apart two runtimes' maps of a drawn image are: the largest difference, as a share of the map's peak."""
    images = _drawn(exact.spec.input_size_px)
    expected, actual = (_map(network, images) for network in (exact, other))
    return float(np.abs(actual - expected).max() / expected.max())


@torch.inference_mode()
def _map(network: Network, images: ModelInputs) -> AnomalyMap:
    """The second image's map against the first."""
    pipeline = Pipeline(network, ReferenceOptions(), ParallelSearch())
    reference, image = (pipeline.patches(one[None]) for one in images)
    return pipeline.score(image, BankIndex.build(reference[0]))[0].anomaly_map


def _drawn(size_px: int) -> ModelInputs:
    """Two images (2, S, S, 3): one coarse pattern of colors, each under grain of its own, the second with a spot."""
    rng = np.random.default_rng(0)
    coarse = cv2.resize(rng.uniform(60, 200, (6, 8, 3)), (size_px, size_px), interpolation=cv2.INTER_CUBIC)
    images = coarse + rng.normal(0, 12, (2, size_px, size_px, 1))
    spot = slice(size_px // 3, size_px // 2)
    images[1, spot, spot] = 30
    return images.clip(0, 255).astype(np.uint8)


def _compiled(network: Network, precision: str) -> Network:
    runtime = OpenVinoRuntime(_in_openvino(network), precision=precision, threads=torch.get_num_threads())
    return dataclasses.replace(network, runtime=runtime)


def _quantizer(network: Network, cache: Path | None) -> Quantizer:
    spec = network.spec
    return Quantizer(
        _in_openvino(network),
        identity=f"{spec.name}/{spec.preprocessing}/{network.weights_digest}",
        float_layers=spec.float_layers,
        threads=torch.get_num_threads(),
        cache=None if cache is None else NetworkCache(cache),
    )


def _in_openvino(network: Network) -> openvino.Model:
    return converted(network.module, network.spec.input_size_px)
