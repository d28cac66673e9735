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
from dataclasses import dataclass
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
from patchserve_server.domain.reference import Calibration
from patchserve_server.domain.reference_options import ReferenceOptions, ScoringProfile
from patchserve_server.engine.backbone.loading import load_backbone
from patchserve_server.engine.detector import PatchCoreDetector
from patchserve_server.serving.drift.comparison import WINDOWS, compare
from patchserve_server.serving.drift.watch import COMPARED_EVERY

COUNTS: Final = {4: 10, 12: 10, 120: 1}  # reference images -> draws
LENGTH: Final = WINDOWS[-1]
CHANGES: Final[Mapping[str, Callable[[Image.Image], Image.Image]]] = {
    "darker by 10 %": lambda image: ImageEnhance.Brightness(image).enhance(0.9),
    "darker by 30 %": lambda image: ImageEnhance.Brightness(image).enhance(0.7),
    "darker by 60 %": lambda image: ImageEnhance.Brightness(image).enhance(0.4),
    "shifted by 2 %": lambda image: ImageChops.offset(image, image.width // 50, image.height // 50),
    "shifted by 10 %": lambda image: ImageChops.offset(image, image.width // 10, image.height // 10),
    "blurred, 1 % of the side": lambda image: image.filter(ImageFilter.GaussianBlur(max(image.size) / 100)),
    "blurred, 0.3 % of the side": lambda image: image.filter(ImageFilter.GaussianBlur(max(image.size) / 300)),
    "turned by 90 degrees": lambda image: image.transpose(Image.Transpose.ROTATE_90),
}
DAMAGE: Final = {f"{share} % damaged": share / 100 for share in (5, 10, 20, 30, 40)}

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Pools:
    """The scores against one reference."""

    calibration: Calibration
    good: Scores
    changed: Mapping[str, Scores]
    defective: Scores


def pools(
    detector: PatchCoreDetector, dataset: Dataset, foreign: Dataset | None, options: ReferenceOptions
) -> Iterator[tuple[int, Pools]]:
    """The number of reference images, and the scores against them, for each draw."""
    limits = imaging.ImageLimits()

    def read(path: Path) -> Image.Image:
        return imaging.decode_image(path.read_bytes(), limits)

    shape = detector.input_shape(options, read(dataset.references[0]).size)

    def inputs(images: list[Image.Image]) -> ModelInputs:
        return np.stack([imaging.to_model_input(image, shape) for image in images])

    training = [read(path) for path in dataset.references]
    intact = [read(image.path) for image in dataset.images if image.defect is None]
    defective = [read(image.path) for image in dataset.images if image.defect is not None]
    sets = {"training": inputs(training), "good": inputs(intact), "defective": inputs(defective)}
    sets |= {name: inputs([change(image) for image in intact]) for name, change in CHANGES.items()}
    if foreign is not None:
        sets["another product"] = inputs([read(path) for path in foreign.references])
    any_scorer = detector.fit(sets["training"][:3], options, lambda *_: None)
    with torch.inference_mode():
        vectors = {name: any_scorer.pipeline.embed_each(each, lambda *_: None) for name, each in sets.items()}
    rng = np.random.default_rng(0)
    for count, draws in COUNTS.items():
        for _ in range(draws if count <= len(training) else 0):
            drawn = np.sort(rng.choice(len(training), count, replace=False))
            scorer = detector.fit(sets["training"][drawn], options, lambda *_: None)

            def score(patches: torch.Tensor, scorer=scorer) -> Scores:
                with torch.inference_mode():
                    return np.array([scorer.pipeline.score(one[None], scorer.index)[0].image_score for one in patches])

            others = np.setdiff1d(np.arange(len(training)), drawn)
            good = [score(vectors["good"])]
            if len(others):
                good.append(score(vectors["training"][others]))
            names = [name for name in sets if name not in ("training", "good", "defective")]
            changed = {name: score(vectors[name]) for name in names}
            yield count, Pools(scorer.model.calibration, np.concatenate(good), changed, score(vectors["defective"]))


def told(scores: Scores, first: int, calibration: Calibration) -> tuple[DriftState, int]:
    """What is told first from the image with this number on, and after how many more images."""
    for end in range(max(first, WINDOWS[0] - COMPARED_EVERY) + COMPARED_EVERY, len(scores) + 1, COMPARED_EVERY):
        state = compare(tuple(scores[max(0, end - LENGTH) : end]), calibration).state
        if state is not DriftState.NONE:
            return state, end - first
    return DriftState.NONE, len(scores) - first


@dataclass(frozen=True)
class Row:
    """What was told in all streams of one change."""

    outcomes: Counter[DriftState]
    images: list[int]  # until it was told

    def cells(self) -> list[str]:
        total = self.outcomes.total()
        shares = [f"{self.outcomes[state] / total:.0%}" for state in (DriftState.SCENE_CHANGED, DriftState.MORE_DAMAGE)]
        return [*shares, f"{np.median(self.images):.0f}" if self.images else "-"]


def measure(all_pools: list[Pools], streams: int) -> dict[str, Row]:
    rng, rows = np.random.default_rng(1), dict[str, Row]()
    for pool in all_pools:
        changes: dict[str, Callable[[], Scores]] = {"nothing": lambda pool=pool: rng.choice(pool.good, LENGTH)}
        for name, changed in pool.changed.items():
            changes[name] = lambda changed=changed: rng.choice(changed, LENGTH)
        for name, share in DAMAGE.items():
            changes[name] = lambda pool=pool, share=share: np.where(
                rng.random(LENGTH) < share, rng.choice(pool.defective, LENGTH), rng.choice(pool.good, LENGTH)
            )
        for name, draw in changes.items():
            row = rows.setdefault(name, Row(Counter(), []))
            for _ in range(streams):
                scores, first = np.concatenate((rng.choice(pool.good, LENGTH), draw())), LENGTH
                state, images = told(scores, 0 if name == "nothing" else first, pool.calibration)
                row.outcomes[state] += 1
                if state is not DriftState.NONE:
                    row.images.append(images)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", type=Path, nargs="+", metavar="DATASET", help="a folder in the layout of MVTec AD")
    profiles = [profile.value for profile in ScoringProfile]
    parser.add_argument("--profile", choices=profiles, default="notebook", help="scoring profile (default: notebook)")
    parser.add_argument("--streams", type=int, default=40, help="for each draw (default: 40)")
    arguments = parser.parse_args()
    options = ReferenceOptions(ScoringProfile(arguments.profile))
    detector = PatchCoreDetector(load_backbone("efficientnet_lite2", None, torch.device("cpu")))
    for path in arguments.datasets:
        others = [other for other in arguments.datasets if other != path]
        by_count: dict[int, list[Pools]] = {}
        for count, pool in pools(detector, read_dataset(path), read_dataset(others[0]) if others else None, options):
            by_count.setdefault(count, []).append(pool)
        for count, all_pools in by_count.items():
            title = f"{path.name}, {count} reference images"
            table = Table("change", "scene changed", "more damage", "images until then", title=title)
            for name, row in measure(all_pools, arguments.streams).items():
                table.add_row(name, *row.cells())
            Console(width=120).print(table)


if __name__ == "__main__":
    main()
