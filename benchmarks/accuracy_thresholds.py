"""Rules for the threshold, compared on labeled data sets from the reference images' own scores.

    .venv/bin/python benchmarks/accuracy_thresholds.py DATASET... [--profile verdict] [--input 320]

Each reference is fitted once. All rules use its leave-one-out scores, and no test image. References with fewer images
than the data set offers are drawn several times; the results are means over the draws.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist, fmean, stdev
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from patchserve_server.bootstrap.process import configure_process

configure_process()  # before the engine imports OpenVINO

from patchserve_client.evaluation import Dataset, read_dataset
from patchserve_server import imaging
from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.input_options import InputOptions, InputShape
from patchserve_server.domain.reference_options import CoresetOptions, ReferenceOptions, ScoringProfile
from patchserve_server.engine.backbone.loading import load_backbone
from patchserve_server.engine.detector import PatchCoreDetector
from patchserve_server.engine.patchcore.prediction_limit import ScorePrediction

DRAWS: Mapping[int, int] = {4: 6, 8: 5, 16: 4}  # reference images -> draws
Scores: TypeAlias = Sequence[float]
Raw: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a threshold gives on the test images."""

    false_alarms: float
    below_best: float  # the balanced accuracy at the best threshold, minus that at this one
    rate: float  # that the rule expects; NaN: none


def rank(share: float) -> Callable[[Scores], float]:
    """The conformal quantile; with too few scores for it, their mean and the same quantile of a normal distribution."""

    def limit(scores: Scores) -> float:
        place = math.ceil(share * (len(scores) + 1))
        if place <= len(scores):
            return sorted(scores)[place - 1]
        return fmean(scores) + NormalDist().inv_cdf(share) * stdev(scores)

    return limit


def by_moments(rate: float) -> Callable[[Scores], float]:
    """The quantile of the Gumbel distribution with the mean and the standard deviation of the scores."""

    def limit(scores: Scores) -> float:
        scale = stdev(scores) * math.sqrt(6) / math.pi
        return fmean(scores) - scale * (np.euler_gamma + math.log(-math.log(1 - rate)))

    return limit


def prediction(rate: float) -> Callable[[Scores], float]:
    return lambda scores: ScorePrediction.of(scores).limit_of(rate)


RULES: Mapping[str, Callable[[Scores], float]] = {
    **{f"prediction limit at {rate:.1%}": prediction(rate) for rate in (0.02, 0.05, 0.1, 0.125, 0.15, 0.2)},
    "Gumbel by moments at 10 %": by_moments(0.1),
    "rank 0.91": rank(0.91),
    "highest": max,
}


def balanced_accuracy(intact: Raw, defective: Raw, threshold: float) -> float:
    return float((np.mean(intact <= threshold) + np.mean(defective > threshold)) / 2)


def model_inputs(paths: Sequence[Path], shape: InputShape) -> ModelInputs:
    limits = imaging.ImageLimits()
    return np.stack([imaging.to_model_input(imaging.decode_image(path.read_bytes(), limits), shape) for path in paths])


def measure(
    detector: PatchCoreDetector, dataset: Dataset, options: ReferenceOptions
) -> dict[int, dict[str, list[Outcome]]]:
    """Reference images -> rule -> an outcome for each draw."""
    limits = imaging.ImageLimits()
    first = imaging.decode_image(dataset.references[0].read_bytes(), limits)
    shape = detector.input_shape(options, first.size)
    good = model_inputs(dataset.references, shape)
    tests = model_inputs([image.path for image in dataset.images], shape)
    is_defective = np.array([image.defect is not None for image in dataset.images])
    results: dict[int, dict[str, list[Outcome]]] = {}
    rng = random.Random(0)
    counts = [count for count, draws in DRAWS.items() if count < len(good) for _ in range(draws)]
    for count in track([*counts, len(good)], "references", console=Console(stderr=True), transient=True):
        scorer = detector.fit(good[sorted(rng.sample(range(len(good)), count))], options, lambda *_: None)
        normal = scorer.model.calibration.normal_scores.scores
        raw = np.array([scores.image_score for scores in scorer.score(tests)[0]])
        intact, defective = raw[~is_defective], raw[is_defective]
        best = max(balanced_accuracy(intact, defective, threshold) for threshold in raw)
        for name, rule in RULES.items():
            threshold = rule(normal)
            below_best = best - balanced_accuracy(intact, defective, threshold)
            expected = ScorePrediction.of(normal).rate_above(threshold)
            outcome = Outcome(float(np.mean(intact > threshold)), below_best, expected)
            results.setdefault(count if count in DRAWS else 0, {}).setdefault(name, []).append(outcome)
    return results


def print_tables(by_set: Mapping[str, dict[int, dict[str, list[Outcome]]]]) -> None:
    """One table for each number of reference images: the means over the draws, then over the data sets."""
    for count in sorted({count for results in by_set.values() for count in results}, key=lambda count: count or 10**9):
        sets = {name: results[count] for name, results in by_set.items() if count in results}
        title = f"{count} reference images" if count else "all reference images"
        table = Table("threshold", "expected", *sets, "mean, highest", "below the best", title=title)
        for rule in RULES:
            alarms = [fmean(outcome.false_alarms for outcome in results[rule]) for results in sets.values()]
            gaps = [fmean(outcome.below_best for outcome in results[rule]) for results in sets.values()]
            expected = fmean(outcome.rate for results in sets.values() for outcome in results[rule])
            cells = [f"{alarm:.1%}, {gap:.3f}" for alarm, gap in zip(alarms, gaps, strict=True)]
            table.add_row(
                rule, f"{expected:.1%}", *cells, f"{fmean(alarms):.1%}, {max(alarms):.1%}", f"{fmean(gaps):.3f}"
            )
        Console(width=160).print(table)
    Console().print("A cell of a data set: false alarms, and how far the balanced accuracy is below the best one.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", type=Path, nargs="+", metavar="DATASET", help="a folder in the layout of MVTec AD")
    profiles = [profile.value for profile in ScoringProfile]
    parser.add_argument("--profile", choices=profiles, default="verdict", help="scoring profile (default: verdict)")
    parser.add_argument("--input", type=int, metavar="PX", help="side of the model inputs (default: the profile's)")
    parser.add_argument("--coreset-ratio", type=float, help="share of the bank to keep (default: all)")
    arguments = parser.parse_args()
    options = ReferenceOptions(
        ScoringProfile(arguments.profile),
        CoresetOptions(arguments.coreset_ratio),
        input=InputOptions(longer_side_px=arguments.input),
    )
    detector = PatchCoreDetector(load_backbone("efficientnet_lite2", None, torch.device("cpu")))
    print_tables({path.name: measure(detector, read_dataset(path), options) for path in arguments.datasets})


if __name__ == "__main__":
    main()
