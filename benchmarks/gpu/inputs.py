"""Weights, banks and images of the benchmark. Speed hardly depends on training, so weights are random."""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from patchserve_server.domain.input_options import InputShape
from patchserve_server.domain.reference import MemoryBank, ReferenceModel
from patchserve_server.domain.reference_options import ReferenceOptions
from patchserve_server.engine.backbone.architectures import BACKBONES
from patchserve_server.engine.detector import PatchCoreDetector
from patchserve_server.engine.patchcore.scorer import PatchCoreScorer

PARCELS = Path(__file__).resolve().parents[2] / "samples" / "parcels"
SENT_PX = (1001, 712)  # (width, height)

_LARGEST_SHIFT_PX = 12
_AT_ONCE = 16
_IMAGES_OF_STATISTICS = 8


@torch.inference_mode()
def write_weights(backbone: str, path: Path) -> None:
    """Random weights whose features differ from place to place as much as those of trained ones do.

    The batch norms have the statistics of parcels. Without them the features of all patches would be nearly the same,
    which no search for the nearest of them would survive.
    """
    torch.manual_seed(0)
    spec = BACKBONES[backbone]
    network = spec.build()
    used = spec.truncate(network).train()
    used.load_state_dict(used.state_dict())  # some layers prepare themselves when they get their weights
    for module in used.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean of all batches
    images = torch.from_numpy(model_inputs(_IMAGES_OF_STATISTICS, InputShape.square())).permute(0, 3, 1, 2) / 255
    features = (images - torch.tensor(spec.mean).view(3, 1, 1)) / torch.tensor(spec.std).view(3, 1, 1)
    used(features)
    save_file(network.state_dict(), path)


def write_sent_images(folder: Path) -> None:
    """JPEG files as callers send them."""
    folder.mkdir()
    for number, path in enumerate(sorted((PARCELS / "test").rglob("*.jpg"))[:8]):
        stretched = Image.open(path).convert("RGB").resize(SENT_PX, Image.Resampling.LANCZOS)
        stretched.save(encoded := io.BytesIO(), "JPEG", quality=90)
        (folder / f"{number}.jpg").write_bytes(encoded.getvalue())


def model_inputs(count: int, shape: InputShape, seed: int = 0) -> NDArray[np.uint8]:
    """Parcels (count, H, W, 3), each shifted and with noise of its own."""
    parcels = _parcels(shape.size_px)
    rng = np.random.default_rng(seed)
    images = []
    for number in range(count):
        shift_px = tuple(rng.integers(-_LARGEST_SHIFT_PX, _LARGEST_SHIFT_PX + 1, 2))
        image = np.roll(parcels[number % len(parcels)], shift_px, axis=(0, 1)).astype(np.int16)
        images.append((image + rng.integers(-6, 7, image.shape)).clip(0, 255).astype(np.uint8))
    return np.stack(images)


@functools.cache
def _parcels(size_px: tuple[int, int]) -> Sequence[NDArray[np.uint8]]:
    paths = sorted((PARCELS / "train" / "good").iterdir())
    return [np.asarray(Image.open(path).convert("RGB").resize(size_px)) for path in paths]


@dataclass(frozen=True)
class References:
    """Makes references with as many rows as wanted, of one shape. A load of hundreds of images would take too long."""

    shape: InputShape
    base: PatchCoreScorer

    @classmethod
    def create(cls, detector: PatchCoreDetector, shape: InputShape) -> References:
        base = detector.fit(model_inputs(1, shape), ReferenceOptions(), lambda *_: None)
        assert isinstance(base, PatchCoreScorer)
        return cls(shape, base)

    @torch.inference_mode()
    def model(self, rows: int, seed: int) -> ReferenceModel:
        """Of the patch vectors of as many parcels as that takes."""
        bank = self.base.model.bank
        assert isinstance(bank, MemoryBank)
        per_image = len(bank.patches)
        count = -(-rows // per_image)
        inputs = model_inputs(count, self.shape, seed + 1)
        parts = [inputs[start : start + _AT_ONCE] for start in range(0, count, _AT_ONCE)]
        vectors = [self.base.pipeline.embed(part).flatten(0, 1).cpu().numpy() for part in parts]
        larger = MemoryBank(
            patches=np.concatenate(vectors)[:rows],
            image_index=np.repeat(np.arange(count, dtype=np.int32), per_image)[:rows],
            grid_index=np.tile(bank.grid_index, count)[:rows],
            spacing=np.ones(rows, np.float32),
            inputs=inputs,
        )
        return ReferenceModel(self.base.model.spec, self.base.model.options, larger, self.base.model.calibration)
