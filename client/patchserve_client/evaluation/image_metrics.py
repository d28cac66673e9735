"""Image metrics: how well the verdicts separate intact from defective images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, balanced_accuracy_score, f1_score, roc_auc_score, roc_curve


@dataclass(frozen=True, slots=True)
class ImageMetrics:
    """The metrics. None: not defined, because there are no intact or no defective images."""

    image_auroc: float | None = None
    average_precision: float | None = None
    f1: float | None = None  # this and the next one: at the calibrated threshold
    balanced_accuracy: float | None = None
    best_balanced_accuracy: float | None = None  # at the best threshold for these same images
    best_threshold: float | None = None  # flags scores at or above it; None also if it would flag none
    false_alarm_rate: float | None = None  # the share of intact images above the calibrated threshold
    damage_percentage_auroc: float | None = None


def image_metrics(
    defective: NDArray[np.bool_],
    scores: NDArray[np.floating[Any]],
    flagged: NDArray[np.bool_],
    damage_percentages: NDArray[np.floating[Any]],
) -> ImageMetrics:
    """Compute the metrics of one verdict per image.

    Args:
        defective: (N,) the labels.
        scores: (N,) higher is more anomalous.
        flagged: (N,) the verdict at the calibrated threshold.
        damage_percentages: (N,) the notebook's measure, to compare with.
    """
    false_alarm_rate = None if defective.all() else float(flagged[~defective].mean())
    if defective.all() or not defective.any():
        return ImageMetrics(false_alarm_rate=false_alarm_rate)
    false_rates, true_rates, thresholds = roc_curve(defective, scores)
    balanced = (true_rates + 1 - false_rates) / 2
    best = int(balanced.argmax())
    return ImageMetrics(
        image_auroc=float(roc_auc_score(defective, scores)),
        average_precision=float(average_precision_score(defective, scores)),
        f1=float(f1_score(defective, flagged)),
        balanced_accuracy=float(balanced_accuracy_score(defective, flagged)),
        best_balanced_accuracy=float(balanced[best]),
        best_threshold=float(thresholds[best]) if np.isfinite(thresholds[best]) else None,
        false_alarm_rate=false_alarm_rate,
        damage_percentage_auroc=float(roc_auc_score(defective, damage_percentages)),
    )


def auroc(intact: NDArray[np.floating[Any]], defective: NDArray[np.floating[Any]]) -> float | None:
    """The probability that a defective image scores above an intact one; None if one of them is missing."""
    if not (intact.size and defective.size):
        return None
    truth = np.repeat([False, True], [intact.size, defective.size])
    return float(roc_auc_score(truth, np.concatenate([intact, defective])))
