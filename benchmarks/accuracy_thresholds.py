"""Statistics of the reference images' own scores, compared as thresholds on a labeled data set.

    .venv/bin/python benchmarks/accuracy_thresholds.py DATASET [--profile paper] [--coreset-ratio 0.1]

Each reference is fitted once. All statistics use its leave-one-out scores, and no test image. References with
fewer images than the data set offers are drawn several times; the results are means over the draws.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean, median, stdev
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from patchserve_server.bootstrap.process import configure_process
from patchserve_server.domain.input_options import InputShape

configure_process()  # before the engine imports OpenVINO

from patchserve_client.evaluation import Dataset, read_dataset
from patchserve_server import imaging
from patchserve_server.domain.reference_options import CoresetOptions, ReferenceOptions, ScoringProfile
from patchserve_server.engine.backbone.loading import load_backbone
from patchserve_server.engine.detector import PatchCoreDetector
from patchserve_server.engine.patchcore import calibration

DRAWS = {8: 8, 30: 4, 10**6: 1}  # reference images -> draws
Scores = Sequence[float]


def quantile(share: float) -> Callable[[Scores], float]:
    return lambda scores: float(np.quantile(scores, share))


def mean_plus(deviations: float) -> Callable[[Scores], float]:
    return lambda scores: fmean(scores) + deviations * stdev(scores)


def median_plus(deviations: float) -> Callable[[Scores], float]:
    """The robust form of `mean_plus`: median absolute deviations, scaled to match a normal distribution."""

    def threshold(scores: Scores) -> float:
        middle = median(scores)
        return middle + deviations * 1.4826 * median(abs(score - middle) for score in scores)

    return threshold


STATISTICS: dict[str, Callable[[Scores], float]] = {
    "shipped": calibration.upper_limit,
    "max": max,
    **{f"quantile {share}": quantile(share) for share in (0.85, 0.9, 0.95, 0.99)},
    **{f"mean + {k} sd": mean_plus(k) for k in (1, 1.5, 2, 3)},
    **{f"median + {k} MAD": median_plus(k) for k in (1, 1.5, 2, 3)},
}


def balanced_accuracy(intact: NDArray[np.float64], defective: NDArray[np.float64], threshold: float) -> float:
    return float((np.mean(intact <= threshold) + np.mean(defective > threshold)) / 2)


def fit_and_score(
    detector: PatchCoreDetector, images: NDArray[np.uint8], references: NDArray[np.uint8], options: ReferenceOptions
) -> tuple[Scores, NDArray[np.float64]]:
    """The leave-one-out scores of the references, and the raw scores of the images."""
    with patch.object(calibration, "upper_limit", wraps=calibration.upper_limit) as upper_limit:
        scorer = detector.fit(references, options, lambda _stage, _done, _total: None)
    raw_scores, _ = scorer.score(images)
    return upper_limit.call_args_list[0].args[0], np.array([raw.image_score for raw in raw_scores])


def model_inputs(paths: Sequence[Path]) -> NDArray[np.uint8]:
    limits = imaging.ImageLimits()
    return np.stack(
        [imaging.to_model_input(imaging.decode_image(path.read_bytes(), limits), InputShape.square()) for path in paths]
    )


def measure(dataset: Dataset, options: ReferenceOptions) -> dict[int, dict[str, list[tuple[float, float, float]]]]:
    """Reference images -> statistic -> for each draw: false alarms, balanced accuracy, best possible accuracy."""
    detector = PatchCoreDetector(load_backbone("efficientnet_lite2", None, torch.device("cpu")))
    good = model_inputs(dataset.references)
    tests = model_inputs([image.path for image in dataset.images])
    is_defective = np.array([image.defect is not None for image in dataset.images])
    rows: dict[int, dict[str, list[tuple[float, float, float]]]] = {}
    rng = random.Random(0)
    counts = [min(count, len(good)) for count, draws in DRAWS.items() for _ in range(draws)]
    for count in track(counts, "references", console=Console(stderr=True), transient=True):
        chosen = sorted(rng.sample(range(len(good)), count))
        normal, raw = fit_and_score(detector, tests, good[chosen], options)
        intact, defective = raw[~is_defective], raw[is_defective]
        best = max(balanced_accuracy(intact, defective, threshold) for threshold in raw)
        for name, statistic in STATISTICS.items():
            threshold = statistic(normal)
            row = float(np.mean(intact > threshold)), balanced_accuracy(intact, defective, threshold), best
            rows.setdefault(count, {}).setdefault(name, []).append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, help="a folder in the layout of MVTec AD")
    parser.add_argument(
        "--profile", choices=["notebook", "paper"], default="notebook", help="scoring profile (default: notebook)"
    )
    parser.add_argument("--coreset-ratio", type=float, help="share of the bank to keep (default: all)")
    arguments = parser.parse_args()
    options = ReferenceOptions(ScoringProfile[arguments.profile.upper()], CoresetOptions(arguments.coreset_ratio))
    for count, draws in measure(read_dataset(arguments.dataset), options).items():
        table = Table(
            "threshold", "false alarms", "balanced accuracy", "below the best", title=f"{count} reference images"
        )
        for name, rows in draws.items():
            alarms, accuracy, best = (fmean(column) for column in zip(*rows, strict=True))
            table.add_row(name, f"{alarms:.1%}", f"{accuracy:.3f}", f"{best - accuracy:.3f}")
        Console().print(table)


if __name__ == "__main__":
    main()
