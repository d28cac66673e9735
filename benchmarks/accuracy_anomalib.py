"""anomalib's PatchCore beside ours, with the embedded backbone, on a labeled data set: `make bench-peers`.

anomalib's own model does all the work: 3 x 3 pooling, k-center coreset, score re-weighted by 9 neighbors, smoothed
map. It gets images that are prepared as in our server, and either the plain outputs of the backbone's blocks, from its
own feature extractor, or the layers from our engine. Our engine gets the same images at the same size. The metrics are
those of `patchserve evaluate`. Times are for one prepared image at a time.
"""

from __future__ import annotations

import argparse
import ctypes
import platform
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from anomalib.models.components import TimmFeatureExtractor
from anomalib.models.image.patchcore.torch_model import PatchcoreModel
from rich.console import Console
from rich.table import Table
from timing import RESULTS, write_results
from torch import Tensor, nn

from patchserve_server.bootstrap.process import configure_process

configure_process()  # before the engine imports OpenVINO

from accuracy.inspecting import inspect_pixels
from accuracy.remembered import plain_detector

from patchserve_client.evaluation import Dataset, read_dataset
from patchserve_client.evaluation.dataset import read_mask
from patchserve_client.evaluation.image_metrics import image_metrics
from patchserve_client.evaluation.pixel_metrics import PixelHistograms
from patchserve_server import imaging
from patchserve_server.domain.input_options import InputOptions, InputShape
from patchserve_server.domain.reference_options import CoresetOptions, ReferenceOptions, ScoringProfile
from patchserve_server.engine.backbone.architectures import BACKBONES
from patchserve_server.engine.backbone.loading import load_backbone

BACKBONE = BACKBONES["efficientnet_lite2"]
BLOCKS = ["_blocks.14", "_blocks.19"]  # at 224 px: (120, 14, 14) and (208, 7, 7)
RATIOS = (0.1, 1.0)
PROFILES = (ScoringProfile.NOTEBOOK, ScoringProfile.VERDICT)
M_MMAP_THRESHOLD = -3  # in glibc's malloc.h


class PlainLayers(nn.Module):
    """The plain outputs of BLOCKS, from anomalib's extractor."""

    names = BLOCKS

    def __init__(self) -> None:
        super().__init__()
        network = BACKBONE.build()
        network.load_state_dict(dict(BACKBONE.pretrained().state))
        self.extractor = TimmFeatureExtractor(network, BLOCKS)
        self.mean, self.std = (torch.tensor(values).view(3, 1, 1) for values in (BACKBONE.mean, BACKBONE.std))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        layers: dict[str, Tensor] = self.extractor((images / 255 - self.mean) / self.std)
        return layers


class ServerLayers(nn.Module):
    """The layers that our engine makes from the same blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.runtime = load_backbone(BACKBONE.name, None, torch.device("cpu")).runtime
        probe = self.runtime.layers(np.zeros((1, *InputShape.square().sides_px, 3), np.uint8))
        self.names = [f"layer{position}" for position in range(len(probe))]

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        inputs = images.permute(0, 2, 3, 1).to(torch.uint8).numpy()
        return dict(zip(self.names, self.runtime.layers(inputs), strict=True))


EXTRACTORS: dict[str, type[PlainLayers | ServerLayers]] = {
    "plain blocks": PlainLayers,
    "patchserve's layers": ServerLayers,
}


@dataclass(frozen=True)
class Row:
    """One system on the whole data set. None: the metric is not defined on this data set."""

    system: str
    features: str
    coreset_ratio: float
    bank_rows: int
    image_auroc: float | None
    average_precision: float | None
    pixel_auroc: float | None
    aupro: float | None
    ms_per_image: float  # median of embedding, search, score and map


def model_input(path: Path, shape: InputShape) -> Tensor:
    """An image as (1, 3, S, S) float32, 0..255, scaled as in our server."""
    image = imaging.decode_image(path.read_bytes(), imaging.ImageLimits())
    return torch.tensor(imaging.to_model_input(image, shape)).permute(2, 0, 1)[None].float()


def embed_references(dataset: Dataset, extractor: PlainLayers | ServerLayers, shape: InputShape) -> PatchcoreModel:
    """Anomalib's model with all patches of the reference images in its embedding store."""
    model = PatchcoreModel(
        layers=["layer1"], backbone="resnet18", pre_trained=False
    )  # it needs a backbone of its own; replaced below
    model.layers, model.feature_extractor = extractor.names, extractor
    model.train()  # collects patches; trains nothing
    for path in dataset.references:
        model(model_input(path, shape))
    return model


@contextmanager
def mmap_large_arrays() -> Iterator[None]:
    """Make glibc map every large array separately, so that freed memory goes back to the system.

    In each step anomalib's selection allocates and frees the differences to all patches. glibc puts arrays of up to
    32 MiB into its heap. If the freed space happens not to fit the next array, the heap grows in every step: for 23,520
    patches by 23 MB, 2,351 times, with 0.2 GB in use.
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_THRESHOLD, 2**16)
    yield
    libc.mallopt(M_MMAP_THRESHOLD, 2**25)  # the value that glibc reaches by itself


def fill_bank(model: PatchcoreModel, patches: list[Tensor], ratio: float) -> None:
    """Set the memory bank to a coreset of the patches."""
    if ratio == 1:  # selecting all of them would only reorder them
        model.memory_bank = torch.vstack(patches)
        return
    model.embedding_store = list(patches)
    with mmap_large_arrays():
        model.subsample_embedding(ratio)


def measure(dataset: Dataset, model: PatchcoreModel, shape: InputShape, features: str, ratio: float) -> Row:
    model.eval()
    defective = np.array([image.defect is not None for image in dataset.images])
    scores, times_ms, pixels = [], [], PixelHistograms()
    for image in dataset.images:
        inputs = model_input(image.path, shape)
        started_s = time.perf_counter()
        prediction = model(inputs)
        times_ms.append((time.perf_counter() - started_s) * 1000)
        scores.append(float(prediction.pred_score))
        if image.defect is None:
            pixels.add(prediction.anomaly_map[0, 0].numpy(), np.zeros(image.size_px[::-1], np.bool_))
        elif image.mask_path is not None:
            pixels.add(prediction.anomaly_map[0, 0].numpy(), read_mask(image.mask_path))
    # The model has no threshold and no damage percentage; the metrics that need them are not used here.
    metrics = image_metrics(defective, np.array(scores), np.zeros(len(scores)))
    return Row(
        system=f"anomalib {version('anomalib')}",
        features=features,
        coreset_ratio=ratio,
        bank_rows=len(model.memory_bank),
        image_auroc=metrics.image_auroc,
        average_precision=metrics.average_precision,
        pixel_auroc=pixels.auroc(),
        aupro=pixels.aupro(),
        ms_per_image=statistics.median(times_ms),
    )


def measure_ours(dataset: Dataset, profile: ScoringProfile, shape: InputShape, ratio: float) -> Row:
    """Our engine on the same images."""
    options = ReferenceOptions(profile, CoresetOptions(ratio), input=InputOptions(longer_side_px=shape.width_px))
    inspected = inspect_pixels(plain_detector(), dataset.references, dataset.images, options)
    return Row(
        system="patchserve",
        features=profile.name,
        coreset_ratio=ratio,
        bank_rows=inspected.bank_rows,
        image_auroc=inspected.metrics.image_auroc,
        average_precision=inspected.metrics.average_precision,
        pixel_auroc=inspected.pixels.auroc(),
        aupro=inspected.pixels.aupro(),
        ms_per_image=statistics.median(inspected.times_ms),
    )


@torch.inference_mode()
def measure_all(dataset: Dataset, shape: InputShape, ratios: Sequence[float], seed: int) -> list[Row]:
    rows = []
    for features, extractor in EXTRACTORS.items():
        model = embed_references(dataset, extractor(), shape)
        patches = list(model.embedding_store)
        for ratio in ratios:
            torch.manual_seed(seed)
            np.random.seed(seed)  # noqa: NPY002 - anomalib draws its projection from the global state
            fill_bank(model, patches, ratio)
            rows.append(measure(dataset, model, shape, features, ratio))
    for profile in PROFILES:
        rows += [measure_ours(dataset, profile, shape, ratio) for ratio in ratios]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures anomalib's PatchCore and ours with the embedded backbone.")
    parser.add_argument("dataset", type=Path, help="a folder in the layout of MVTec AD")
    parser.add_argument(
        "--json", type=Path, default=RESULTS / "accuracy_anomalib.json", help="the file for the results"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the coreset's projection and first patch (default: 0)"
    )
    parser.add_argument("--size", type=int, default=224, metavar="PX", help="side of the input (default: 224)")
    parser.add_argument(
        "--ratios", type=float, nargs="+", default=RATIOS, metavar="RATIO", help="coreset ratios (default: 0.1 1)"
    )
    arguments = parser.parse_args()
    dataset = read_dataset(arguments.dataset)
    rows = [
        asdict(row) for row in measure_all(dataset, InputShape.square(arguments.size), arguments.ratios, arguments.seed)
    ]
    write_results(arguments.json, rows)
    title = f"{arguments.size} px, {len(dataset.references)} references, {len(dataset.images)} test images"
    table = Table(*(name.replace("_", " ") for name in rows[0]), title=title)
    for row in rows:
        values = row.values()
        table.add_row(*(f"{value:.3f}" if isinstance(value, float) else str(value) for value in values))
    Console().print(table)


if __name__ == "__main__":
    main()
