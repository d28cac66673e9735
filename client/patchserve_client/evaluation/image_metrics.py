"""Image metrics: how well the verdicts separate intact from defective images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from patchserve_client.evaluation.best_threshold import BestThreshold, best_threshold


@dataclass(frozen=True, slots=True)
class ImageMetrics:
    """The metrics. None: not defined, because there are no intact or no defective images."""

    image_auroc: float | None = None
    average_precision: float | None = None
    false_alarm_rate: float | None = None  # the share of intact images that are anomalous
    found_rate: float | None = None  # the share of defective images that are anomalous
    balanced_accuracy: float | None = None
    f1: float | None = None
    best: BestThreshold | None = None  # for these same images; None also if no threshold is better than a guess
    damage_percentage_auroc: float | None = None  # of the notebook's measure


def image_metrics(
    defective: NDArray[np.bool_], ratios: NDArray[np.floating[Any]], damage_percentages: NDArray[np.floating[Any]]
) -> ImageMetrics:
    """Compute the metrics of one verdict per image.

    Args:
        defective: (N,) the labels.
        ratios: (N,) raw score / threshold: an image above 1 is anomalous.
        damage_percentages: (N,) the notebook's measure, to compare with.
    """
    flagged = ratios > 1
    false_alarm_rate = None if defective.all() else float(flagged[~defective].mean())
    found_rate = float(flagged[defective].mean()) if defective.any() else None
    if false_alarm_rate is None or found_rate is None:
        return ImageMetrics(false_alarm_rate=false_alarm_rate, found_rate=found_rate)
    return ImageMetrics(
        image_auroc=float(roc_auc_score(defective, ratios)),
        average_precision=float(average_precision_score(defective, ratios)),
        false_alarm_rate=false_alarm_rate,
        found_rate=found_rate,
        balanced_accuracy=(found_rate + 1 - false_alarm_rate) / 2,
        f1=float(f1_score(defective, flagged)),
        best=best_threshold(defective, ratios),
        damage_percentage_auroc=float(roc_auc_score(defective, damage_percentages)),
    )


def auroc(intact: NDArray[np.floating[Any]], defective: NDArray[np.floating[Any]]) -> float | None:
    """The probability that a defective image scores above an intact one; None if one of them is missing."""
    if not (intact.size and defective.size):
        return None
    truth = np.repeat([False, True], [intact.size, defective.size])
    return float(roc_auc_score(truth, np.concatenate([intact, defective])))
