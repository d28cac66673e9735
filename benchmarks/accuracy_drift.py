"""How often drift is told when nothing has changed, and how soon when something has, on labeled data sets.

    .venv/bin/python benchmarks/accuracy_drift.py DATASET... [--profile notebook] [--streams 40]

References of 4, 12 and 120 images are drawn from the good training images. The scores of the other good images are the
line as it should be; the same images, changed, and the defective ones are what happens to it. A stream draws from these
scores, with repetition: 256 images as it should be, then 256 of the change.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageEnhance, ImageFilter
from rich.console import Console
from rich.table import Table

from patchserve_server.bootstrap.process import configure_process

configure_process()  # before the engine imports OpenVINO

from patchserve_client.evaluation import Dataset, read_dataset
from patchserve_server import imaging
from patchserve_server.domain.drift import DriftState
from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.ports import Scorer
from patchserve_server.domain.reference import Calibration
from patchserve_server.domain.reference_options import ReferenceOptions, ScoringProfile
from patchserve_server.engine.backbone.loading import load_backbone
from patchserve_server.engine.detector import PatchCoreDetector
from patchserve_server.engine.patchcore.scorer import PatchCoreScorer
from patchserve_server.serving.drift.comparison import MIN_RECENT, WINDOW, compare, state_after
from patchserve_server.serving.drift.watch import COMPARED_EVERY

COUNTS: Final = {4: 5, 12: 5, 120: 1}  # reference images -> draws
LENGTH: Final = WINDOW
CHANGES: Final[Mapping[str, Callable[[Image.Image], Image.Image]]] = {
    "darker by 10 %": lambda image: ImageEnhance.Brightness(image).enhance(0.9),
    "darker by 30 %": lambda image: ImageEnhance.Brightness(image).enhance(0.7),
    "darker by 60 %": lambda image: ImageEnhance.Brightness(image).enhance(0.4),
    "shifted by 2 %": lambda image: ImageChops.offset(image, image.width // 50, image.height // 50),
    "shifted by 10 %": lambda image: ImageChops.offset(image, image.width // 10, image.height // 10),
    "blurred by 0.3 % of the side": lambda image: image.filter(ImageFilter.GaussianBlur(max(image.size) / 300)),
    "blurred by 1 % of the side": lambda image: image.filter(ImageFilter.GaussianBlur(max(image.size) / 100)),
    "turned by 90 degrees": lambda image: image.transpose(Image.Transpose.ROTATE_90),
}
DAMAGE: Final = {f"{share} % damaged": share / 100 for share in (5, 10, 20, 30, 40)}

Scores = NDArray[np.float64]
Vectors = torch.Tensor  # (N, P, D)


@dataclass(frozen=True, eq=False)
class Pools:
    """The scores against one reference."""

    calibration: Calibration
    good: Scores
    changed: Mapping[str, Scores]
    defective: Scores


class Images:
    """The images of a data set as the network sees them, changed and unchanged, and their vectors."""

    def __init__(
        self, detector: PatchCoreDetector, dataset: Dataset, foreign: Dataset | None, options: ReferenceOptions
    ) -> None:
        self._detector, self._options = detector, options
        training = [_read(path) for path in dataset.references]
        intact = [_read(image.path) for image in dataset.images if image.defect is None]
        self._shape = detector.input_shape(options, training[0].size)
        self.training = self._inputs(training)
        inputs = {
            "training": self.training,
            "good": self._inputs(intact),
            "defective": self._inputs([_read(image.path) for image in dataset.images if image.defect is not None]),
        }
        self.changes = [*CHANGES]
        for name, change in CHANGES.items():
            inputs[name] = self._inputs([change(image) for image in intact])
        if foreign is not None:
            self.changes.append("another product")
            inputs["another product"] = self._inputs([_read(path) for path in foreign.references])
        with torch.inference_mode():
            pipeline = _pipeline_of(self._fit(np.arange(3)))
            self._vectors = {name: pipeline.pipeline.embed_each(each, lambda *_: None) for name, each in inputs.items()}

    def _inputs(self, images: list[Image.Image]) -> ModelInputs:
        return np.stack([imaging.to_model_input(image, self._shape) for image in images])

    def _fit(self, numbers: NDArray[np.intp]) -> Scorer:
        return self._detector.fit(self.training[numbers], self._options, lambda *_: None)

    def draw(self, rng: np.random.Generator, count: int) -> Pools:
        """A reference of so many training images, and all scores against it."""
        drawn = np.sort(rng.choice(len(self.training), count, replace=False))
        scorer = _pipeline_of(self._fit(drawn))
        others = self._vectors["training"][np.setdiff1d(np.arange(len(self.training)), drawn)]
        good = np.concatenate((_scores(scorer, self._vectors["good"]), _scores(scorer, others)))
        changed = {name: _scores(scorer, self._vectors[name]) for name in self.changes}
        return Pools(scorer.model.calibration, good, changed, _scores(scorer, self._vectors["defective"]))


def _read(path: Path) -> Image.Image:
    return imaging.decode_image(path.read_bytes(), imaging.ImageLimits())


def _pipeline_of(scorer: Scorer) -> PatchCoreScorer:
    if not isinstance(scorer, PatchCoreScorer):
        raise TypeError("It is not one of the detector's.")
    return scorer


def _scores(scorer: PatchCoreScorer, vectors: Vectors) -> Scores:
    with torch.inference_mode():
        scored = (scorer.pipeline.score(one[None], scorer.index)[0].image_score for one in vectors)
        return np.array([*scored], np.float64)


def told(scores: Scores, first: int, calibration: Calibration) -> tuple[DriftState, int]:
    """What is told from the image with this number on, and after how many more images: another scene before damage."""
    told_at: dict[DriftState, int] = {}
    state = found = DriftState.NONE
    for end in range(max(first, MIN_RECENT - COMPARED_EVERY) + COMPARED_EVERY, len(scores) + 1, COMPARED_EVERY):
        before, found = found, compare(tuple(scores[max(0, end - LENGTH) : end]), calibration).state
        state = state_after(state, before, found)
        told_at.setdefault(state, end - first)
    for state in (DriftState.SCENE_CHANGED, DriftState.MORE_DAMAGE):
        if state in told_at:
            return state, told_at[state]
    return DriftState.NONE, len(scores) - first


@dataclass(frozen=True)
class Row:
    """What was told in all streams of one change."""

    outcomes: Counter[DriftState] = field(default_factory=Counter)
    images: list[int] = field(default_factory=list)  # until it was told

    def cells(self) -> list[str]:
        total, states = self.outcomes.total(), (DriftState.SCENE_CHANGED, DriftState.MORE_DAMAGE)
        shares = [f"{self.outcomes[state] / total:.0%}" for state in states]
        return [*shares, f"{np.median(self.images):.0f}" if self.images else "-"]


def _drawn(rng: np.random.Generator, scores: Scores) -> Scores:
    return rng.choice(scores, LENGTH)


def _damaged(rng: np.random.Generator, pool: Pools, share: float) -> Scores:
    is_damaged = rng.random(LENGTH) < share
    return np.where(is_damaged, rng.choice(pool.defective, LENGTH), rng.choice(pool.good, LENGTH))


def measure(all_pools: list[Pools], streams: int) -> dict[str, Row]:
    """A row for each change."""
    rng, rows = np.random.default_rng(1), dict[str, Row]()
    for pool in all_pools:
        changes: dict[str, Callable[[], Scores]] = {"nothing": partial(_drawn, rng, pool.good)}
        changes |= {name: partial(_drawn, rng, changed) for name, changed in pool.changed.items()}
        changes |= {name: partial(_damaged, rng, pool, share) for name, share in DAMAGE.items()}
        for name, draw in changes.items():
            row = rows.setdefault(name, Row())
            for _ in range(streams):
                scores = np.concatenate((rng.choice(pool.good, LENGTH), draw()))
                state, images = told(scores, 0 if name == "nothing" else LENGTH, pool.calibration)
                row.outcomes[state] += 1
                if state is not DriftState.NONE:
                    row.images.append(images)
    return rows


def pools_of(images: Images) -> Iterator[tuple[int, Pools]]:
    """For each draw, the number of reference images and the scores."""
    rng = np.random.default_rng(0)
    for count, draws in COUNTS.items():
        if count <= len(images.training):
            for _ in range(draws):
                yield count, images.draw(rng, count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", type=Path, nargs="+", metavar="DATASET", help="a folder in the layout of MVTec AD")
    profiles = [profile.value for profile in ScoringProfile]
    parser.add_argument("--profile", choices=profiles, default="notebook", help="scoring profile (default: notebook)")
    parser.add_argument("--streams", type=int, default=40, help="for each draw (default: 40)")
    parser.add_argument("--foreign", type=Path, metavar="DATASET", help="whose images are another product")
    arguments = parser.parse_args()
    options = ReferenceOptions(ScoringProfile(arguments.profile))
    detector = PatchCoreDetector(load_backbone("efficientnet_lite2", None, torch.device("cpu")))
    foreign = None if arguments.foreign is None else read_dataset(arguments.foreign)
    for path in arguments.datasets:
        by_count: dict[int, list[Pools]] = {}
        for count, pool in pools_of(Images(detector, read_dataset(path), foreign, options)):
            by_count.setdefault(count, []).append(pool)
        for count, all_pools in by_count.items():
            title = f"{path.name}, {count} reference images"
            table = Table("change", "scene changed", "more damage", "images until then", title=title)
            for name, row in measure(all_pools, arguments.streams).items():
                table.add_row(name, *row.cells())
            Console(width=120).print(table)


if __name__ == "__main__":
    main()
