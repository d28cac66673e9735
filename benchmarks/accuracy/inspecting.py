"""Loads a reference and scores the test images, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from patchserve_client.evaluation.dataset import LabeledImage, read_mask
from patchserve_client.evaluation.image_metrics import ImageMetrics, image_metrics
from patchserve_client.evaluation.intervals import Interval, intervals
from patchserve_client.evaluation.pixel_metrics import PixelHistograms
from patchserve_server import imaging
from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.input_options import InputShape
from patchserve_server.domain.load_progress import LoadStage
from patchserve_server.domain.ports import Scorer
from patchserve_server.domain.reference_options import ReferenceOptions
from patchserve_server.engine.detector import PatchCoreDetector

_LIMITS = imaging.ImageLimits()

EachMap = Callable[[LabeledImage, NDArray[np.float32]], None]
"""Called with each test image and its anomaly map (h, w)."""


@dataclass(frozen=True)
class Inspected:
    """The raw scores of the test images against the threshold."""

    defective: NDArray[np.bool_]  # (N,)
    ratios: NDArray[np.float64]  # (N,) raw score / threshold
    bank_rows: int
    times_ms: Sequence[float]  # of backbone and search, for each image
    pixels: PixelHistograms = field(default_factory=PixelHistograms)

    @cached_property
    def metrics(self) -> ImageMetrics:
        return image_metrics(self.defective, self.ratios, np.zeros(len(self.ratios)))

    @cached_property
    def intervals(self) -> dict[str, Interval | None]:
        """95 %."""
        return intervals(self.defective, self.ratios)


def load(detector: PatchCoreDetector, paths: Sequence[Path], options: ReferenceOptions) -> Scorer:
    """A reference of these images, in the order of their names."""
    return detector.fit(model_inputs(paths, _shape(detector, paths, options)), options, _ignore)


def inspect(
    detector: PatchCoreDetector,
    references: Sequence[Path],
    images: Sequence[LabeledImage],
    options: ReferenceOptions,
    each_map: EachMap | None = None,
) -> Inspected:
    """Load the references and score the images."""
    scorer, shape = load(detector, references, options), _shape(detector, references, options)
    threshold, ratios, times_ms = scorer.model.calibration.image_threshold, list[float](), list[float]()
    for image in images:
        raw_scores, times = scorer.score(model_inputs([image.path], shape))
        ratios.append(raw_scores[0].image_score / threshold)
        times_ms.append(times.embed_ms + times.search_ms)
        if each_map is not None:
            each_map(image, raw_scores[0].anomaly_map)
    defective = np.array([image.defect is not None for image in images])
    return Inspected(defective, np.array(ratios), scorer.model.bank.vector_count, times_ms)


def inspect_pixels(
    detector: PatchCoreDetector,
    references: Sequence[Path],
    images: Sequence[LabeledImage],
    options: ReferenceOptions,
) -> Inspected:
    """The same with the histograms of pixels, which take longer."""
    pixels = PixelHistograms()

    def count(image: LabeledImage, score_map: NDArray[np.float32]) -> None:
        mask = mask_of(image)
        if mask is not None:
            pixels.add(score_map, mask)

    return replace(inspect(detector, references, images, options, count), pixels=pixels)


def mask_of(image: LabeledImage) -> NDArray[np.bool_] | None:
    """The damaged pixels (H, W); None: not known."""
    if image.defect is None:
        return np.zeros(image.size_px[::-1], np.bool_)
    return None if image.mask_path is None else read_mask(image.mask_path)


def model_inputs(paths: Sequence[Path], shape: InputShape) -> ModelInputs:
    return np.stack([imaging.to_model_input(imaging.decode_image(path.read_bytes(), _LIMITS), shape) for path in paths])


def drawn_references(references: Sequence[Path], count: int, draws: int) -> Iterator[list[Path]]:
    """`count` of the references at random, `draws` times; all of them once if there are no more."""
    if count >= len(references):
        yield list(references)
        return
    rng = np.random.default_rng(count)
    for _ in range(draws):
        yield [references[number] for number in sorted(rng.choice(len(references), count, replace=False))]


def _shape(detector: PatchCoreDetector, paths: Sequence[Path], options: ReferenceOptions) -> InputShape:
    first = imaging.decode_image(paths[0].read_bytes(), _LIMITS)
    return detector.input_shape(options, (first.width, first.height))


def _ignore(_stage: LoadStage, _done: int, _total: int) -> None:
    pass
