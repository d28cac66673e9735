"""Says what a start would find: weights, device, precision. It loads no network and downloads nothing."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import torch

from patchserve_server.domain.errors import StartupError
from patchserve_server.engine.backbone.devices import resolve_device
from patchserve_server.engine.backbone.loading import AUTO, EMBEDDED, spec_of
from patchserve_server.engine.backbone.runtime import BF16, FP16, FP32, INT8, TF32
from patchserve_server.engine.measurements import Measurements

_STATED: Final = re.compile(r"-([0-9a-f]{8})\.\w+$")  # the start of its SHA-256, in the name of a published file
_SUFFIXES: Final = (".pth", ".pt", ".safetensors")


@dataclass(frozen=True, slots=True)
class FoundWeights:
    """The weights of a backbone on this machine.

    Args:
        backbone: whose weights they are.
        path: their file; None: it is not here, and a start would download it.
        sha256: of the file, hexadecimal.
        is_intact: whether the name of a published file agrees with it.
        fallback: the backbone that a start would use without a network; empty: none.
    """

    backbone: str
    path: Path | None
    sha256: str = ""
    is_intact: bool = True
    fallback: str = ""


def find_weights(backbone: str, layers: tuple[int, ...], weights: Path | None) -> FoundWeights:
    """The weights that a start would use. They are read, but not loaded.

    Raises:
        StartupError: the backbone is unknown, or its file cannot be read.
    """
    spec = spec_of(backbone, layers)
    if weights is not None and weights.suffix not in _SUFFIXES:
        raise StartupError(f'The weights file "{weights}" must end in .pth, .pt or .safetensors.')
    path = weights or spec.stored()
    if path is None:
        return FoundWeights(spec.name, None, fallback=EMBEDDED if backbone == AUTO else "")
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise StartupError(f'The weights file "{path}" cannot be read: {error.strerror}.') from error
    stated = None if weights is not None else _STATED.search(path.name)
    return FoundWeights(spec.name, path, sha256, is_intact=stated is None or sha256.startswith(stated[1]))


def device_words(name: str) -> str:
    """The device of a name, in words.

    Raises:
        StartupError: this machine has no such device.
    """
    device = resolve_device(name)
    if device.type == "cpu":
        return f"cpu, {torch.backends.cpu.get_cpu_capability()}"
    properties = torch.cuda.get_device_properties(device)
    return f"{device}, {properties.name}, {properties.total_memory / 2**30:.0f} GiB"


@dataclass(frozen=True, slots=True)
class FoundPrecision:
    """What a precision means on this machine. `times_ms`: those that were measured for `auto`, by precision."""

    precision: str  # that a start would use; empty: it would measure first
    times_ms: Mapping[str, float]


def find_precision(
    precision: str, *, backbone: str, layers: tuple[int, ...], device: str, threads: int, measurements: Measurements
) -> FoundPrecision:
    """The precision that a start would use.

    Raises:
        StartupError: it cannot be used here.
    """
    if resolve_device(device).type != "cpu":
        if precision == INT8:
            raise StartupError(f"Precision {precision} runs on the CPU only.")
        return FoundPrecision("" if precision == AUTO else precision, {})
    from patchserve_server.engine.backbone.openvino_runtime import supports_bf16  # noqa: PLC0415 - not for a GPU
    from patchserve_server.engine.backbone.precision import measurement_name  # noqa: PLC0415 - as above

    spec = spec_of(backbone, layers)
    if precision in (TF32, FP16):
        raise StartupError(f"Precision {precision} needs a GPU.")
    if precision == INT8 and spec.int8 is None:
        raise StartupError(f"Precision {INT8} is not for {spec.name}.")
    if precision == INT8 and find_spec("nncf") is None:
        raise StartupError(f"Precision {INT8} needs the extra int8, which is not installed.")
    if precision == BF16 and not supports_bf16():
        raise StartupError(f"Precision {BF16} needs a processor with AVX-512 BF16 or AMX, and this one has neither.")
    if precision != AUTO:
        return FoundPrecision(precision, {})
    if not supports_bf16():
        return FoundPrecision(FP32, {})
    times_ms = measurements.kept_ms(measurement_name(spec, threads), (FP32, BF16)) or {}
    if not times_ms:
        return FoundPrecision("", {})
    return FoundPrecision(BF16 if times_ms[BF16] < times_ms[FP32] else FP32, times_ms)
