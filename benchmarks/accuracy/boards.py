"""Boards: each defective one against its intact twin as the only reference, and how many of its defects stand out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from accuracy.inspecting import inspect, mask_of
from accuracy.remembered import remembering_detector
from accuracy.results import Results
from accuracy.settings import Setting, setting
from patchserve_client.evaluation import Dataset, LabeledImage, read_dataset
from patchserve_client.evaluation.pixel_metrics import PixelHistograms, stretched
from patchserve_server.engine.detector import PatchCoreDetector

RADIUS = 0.05
SETTINGS = (
    *(setting("VERDICT", side_px) for side_px in (224, 320, 448, 640)),
    setting("VERDICT", 640).with_radius(RADIUS),
)
FALSE_POSITIVE_RATES = (0.001, 0.005, 0.01)  # of clean pixels
_EIGHT_NEIGHBORS = np.ones((3, 3))


class DefectPeaks:
    """The highest score on each defect, and the scores of clean pixels, of images against their own references."""

    def __init__(self) -> None:
        self.peaks = list[float]()
        self.clean = list[NDArray[np.float32]]()
        self.pixels = PixelHistograms()

    def add(self, image: LabeledImage, score_map: NDArray[np.float32]) -> None:
        mask = mask_of(image)
        if mask is None:
            raise ValueError(f"{image.name} has no mask")
        scores = stretched(score_map, mask.shape)
        defects, count = ndimage.label(mask, _EIGHT_NEIGHBORS)
        self.peaks += ndimage.maximum(scores, defects, range(1, count + 1)).tolist()
        self.clean.append(scores[~mask])
        self.pixels.add(score_map, mask)

    def stand_out(self, false_positive_rate: float) -> float:
        """The share of defects whose peak exceeds all but this share of the clean pixels."""
        limit = np.quantile(np.concatenate(self.clean), 1 - false_positive_rate)
        return float(np.mean(np.array(self.peaks) > limit))


def pairs(dataset: Dataset) -> Iterator[tuple[Path, LabeledImage]]:
    """Each defective image whose intact twin is there: (its twin, the image)."""
    intact = [*dataset.references, *(image.path for image in dataset.images if image.defect is None)]
    twins = {path.name.split("_")[0]: path for path in intact}
    for image in dataset.images:
        twin = twins.get(image.path.name.split("_")[0])
        if image.defect is not None and twin is not None:
            yield twin, image


def peaks(detector: PatchCoreDetector, dataset: Dataset, each: Setting) -> DefectPeaks:
    found = DefectPeaks()
    for twin, image in pairs(dataset):
        inspect(detector, [twin], [image], each.options, found.add)
    return found


def measure(data: Path, settings: Sequence[Setting] = SETTINGS) -> None:
    dataset, detector = read_dataset(data / "circuit"), remembering_detector()
    count = len(list(pairs(dataset)))
    results = Results("boards", f"{count} boards, each with one aligned reference")
    for each in settings:
        found = peaks(detector, dataset, each)
        cells = {f"at {rate:.1%} of clean pixels": f"{found.stand_out(rate):.0%}" for rate in FALSE_POSITIVE_RATES}
        row = {"setting": each.name, "defects": str(len(found.peaks)), **cells}
        results.add({**row, "pixel AP": f"{found.pixels.average_precision() or 0:.2f}"})
    results.finish()
