"""The inputs of every system: images, weights and references."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageChops
from torch import nn
from torchvision.models import wide_resnet50_2

from patchserve_server.bootstrap.process import configure_process
from patchserve_server.domain.input_options import InputShape

configure_process()  # before the engine imports OpenVINO

from patchserve_server import imaging
from patchserve_server.domain.digest import revision_of
from patchserve_server.domain.reference import MemoryBank, Reference, ReferenceModel
from patchserve_server.domain.reference_id import ReferenceId
from patchserve_server.domain.reference_options import ReferenceOptions
from patchserve_server.engine.backbone.backbone import Backbone
from patchserve_server.engine.backbone.loading import load_backbone
from patchserve_server.engine.backbone.precision import with_precision
from patchserve_server.engine.detector import PatchCoreDetector
from patchserve_server.engine.map_difference import map_difference
from patchserve_server.engine.patchcore.pipeline import Pipeline
from patchserve_server.engine.search.parallel import ParallelSearch
from patchserve_server.store import FolderReferenceStore

WIDE_RESNET = "wide_resnet50_2"
EMBEDDED = "efficientnet_lite2"
REFERENCE_ID = "default"
SIZE_PX = (1001, 712)  # (width, height)
IMAGE_COUNT = 8

_PARCELS = Path(__file__).resolve().parents[2] / "samples" / "parcels"
_JPEG_QUALITY = 90


@dataclasses.dataclass(frozen=True)
class Inputs:
    """The files of one run."""

    reference: Path  # an intact parcel
    images: list[Path]  # other parcels, some of them damaged
    weights: Path  # of wide_resnet50_2

    def weights_of(self, backbone: str) -> Path | None:
        return self.weights if backbone == WIDE_RESNET else None


def prepare_inputs(folder: Path) -> Inputs:
    """Write the images, all of one size, and random weights into a folder."""
    reference, *_ = sorted((_PARCELS / "train" / "good").iterdir())
    images = sorted((_PARCELS / "test").rglob("*.jpg"))[:IMAGE_COUNT]
    weights = folder / f"{WIDE_RESNET}.pth"
    torch.save(_random_wide_resnet().state_dict(), weights)
    (resized_reference,) = resize_images([reference], SIZE_PX, folder / "reference")
    return Inputs(resized_reference, resize_images(images, SIZE_PX, folder / "images"), weights)


def resize_images(images: Sequence[Path], size_px: tuple[int, int], folder: Path) -> list[Path]:
    """JPEG files of the images, stretched to another size."""
    folder.mkdir()
    paths = [folder / f"{number}.jpg" for number in range(len(images))]
    for image, path in zip(images, paths, strict=True):
        Image.open(image).convert("RGB").resize(size_px, Image.Resampling.LANCZOS).save(path, quality=_JPEG_QUALITY)
    return paths


def _random_wide_resnet() -> nn.Module:
    """Random weights with a fixed seed. Speed does not depend on training, but activations must not vanish."""
    torch.manual_seed(0)
    network: nn.Module = wide_resnet50_2()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
    return network


def open_backbone(name: str, precision: str, weights: Path | None) -> Backbone:
    """A backbone as the server runs it on the CPU."""
    torch_backbone = load_backbone(name, weights, torch.device("cpu"))
    return with_precision(torch_backbone, precision, map_difference=map_difference)


class StoreWriter:
    """Writes stores with references of any size, without calibrating them.

    Calibration takes minutes and makes no difference to the speed of a search.
    """

    def __init__(self, backbone: Backbone, max_images: int) -> None:
        self._inputs = _parcel_views(max_images)
        runtime = backbone.runtime_for(self._inputs, lambda *_: None)
        pipeline = Pipeline.build(backbone.spec, runtime, InputShape.square(), ReferenceOptions(), ParallelSearch())
        with torch.inference_mode():
            self._vectors = pipeline.embed_each(self._inputs, lambda *_: None).numpy()  # (N, P, D)
        detector = PatchCoreDetector(backbone)
        self._one_image_model = detector.fit(self._inputs[:1], ReferenceOptions(), lambda *_: None).model

    def write(self, folder: Path, images: int, references: int) -> None:
        """Write a store of `references` references (default-0, default-1, ...) with `images` images each."""
        model, now = self._model(images), datetime.now(UTC)
        store = FolderReferenceStore(folder)
        for number in range(references):
            store.save(Reference(ReferenceId(f"{REFERENCE_ID}-{number}"), revision_of(model), now, now, model))
        store.close()

    def _model(self, images: int) -> ReferenceModel:
        one_image, vectors = self._one_image_model.memory_bank, self._vectors[:images]
        bank = MemoryBank(
            vectors.reshape(-1, vectors.shape[-1]),
            np.arange(images, dtype=np.int32).repeat(vectors.shape[1]),
            np.tile(one_image.grid_index, images),
            np.tile(one_image.spacing, images),
            self._inputs[:images],
        )
        return dataclasses.replace(self._one_image_model, bank=bank)


def _parcel_views(count: int) -> NDArray[np.uint8]:
    """Different views of the intact samples: (count, S, S, 3)."""
    intact = [Image.open(path).convert("RGB") for path in sorted((_PARCELS / "train" / "good").iterdir())]
    views = []
    for number in range(count):
        repeat, position = divmod(number, len(intact))
        shifted = ImageChops.offset(intact[position], 7 * repeat, 5 * repeat)
        file = io.BytesIO()
        shifted.save(file, "JPEG", quality=_JPEG_QUALITY - repeat)
        image = imaging.decode_image(file.getvalue(), imaging.ImageLimits())
        views.append(imaging.to_model_input(image, InputShape.square()))
    return np.stack(views)
