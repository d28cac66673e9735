"""Weights, banks and images of the benchmark. Speed does not depend on training, so weights are random."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from patchserve_server.domain.input_options import InputShape
from patchserve_server.domain.reference import (
    Calibration,
    CalibrationMethod,
    MemoryBank,
    ReferenceModel,
    ScoreSpread,
)
from patchserve_server.domain.reference_options import ReferenceOptions
from patchserve_server.engine.backbone.convolutional import WIDE_RESNET50_2
from patchserve_server.engine.detector import PatchCoreDetector

PARCELS = Path(__file__).resolve().parents[2] / "samples" / "parcels"
SENT_PX = (1001, 712)  # (width, height)


def write_weights(path: Path) -> None:
    """Random weights of wide_resnet50_2 whose activations neither vanish nor explode."""
    torch.manual_seed(0)
    network = WIDE_RESNET50_2.build()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight.data, 0.5, 1.5)
            nn.init.uniform_(module.get_buffer("running_var"), 0.5, 1.5)
            nn.init.uniform_(module.get_buffer("running_mean"), -0.5, 0.5)
    save_file(network.state_dict(), path)


def sent_images() -> list[bytes]:
    """JPEG files as callers send them."""
    images = []
    for path in sorted((PARCELS / "test").rglob("*.jpg"))[:8]:
        stretched = Image.open(path).convert("RGB").resize(SENT_PX, Image.Resampling.LANCZOS)
        stretched.save(encoded := io.BytesIO(), "JPEG", quality=90)
        images.append(encoded.getvalue())
    return images


def model_inputs(count: int, shape: InputShape, seed: int = 0) -> NDArray[np.uint8]:
    """Parcels (count, H, W, 3), each with noise of its own."""
    paths = sorted((PARCELS / "train" / "good").iterdir())
    rng = np.random.default_rng(seed)
    images = []
    for number in range(count):
        image = Image.open(paths[number % len(paths)]).convert("RGB").resize(shape.size_px)
        noise = rng.integers(-6, 7, (*shape.sides_px, 3))
        images.append((np.asarray(image, np.int16) + noise).clip(0, 255).astype(np.uint8))
    return np.stack(images)


@torch.inference_mode()
def model_with_rows(detector: PatchCoreDetector, rows: int, shape: InputShape, *, seed: int = 0) -> ReferenceModel:
    """A reference with so many rows: the patch vectors of a parcel, and copies of them with noise.

    A load of hundreds of images would take most of the time of the benchmark.
    """
    base = detector.fit(model_inputs(1, shape, seed), ReferenceOptions(), lambda *_: None).model
    bank = base.memory_bank
    copies = -(-rows // len(bank.patches))
    rng = np.random.default_rng(seed)
    spread = float(bank.patches.std()) / 4
    patches = np.concatenate(
        [bank.patches + spread * rng.standard_normal(bank.patches.shape, np.float32) for _ in range(copies)]
    )[:rows]
    larger = MemoryBank(
        patches=patches,
        image_index=np.repeat(np.arange(copies, dtype=np.int32), len(bank.patches))[:rows],
        grid_index=np.tile(bank.grid_index, copies)[:rows],
        spacing=np.ones(rows, np.float32),
        inputs=np.repeat(bank.inputs, copies, axis=0),
    )
    return ReferenceModel(base.spec, base.options, larger, _calibration())


def _calibration() -> Calibration:
    return Calibration(CalibrationMethod.AUGMENTED_VIEWS, 10.0, 10.0, ScoreSpread.of([1.0, 2.0]))
