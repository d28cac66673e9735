"""Which setting of a sweep to use: the cheapest one that is not significantly worse than the best.

The highest of many measured values is partly luck. So a setting counts as good as the best unless even the largest of
all differences that chance alone makes between the settings is smaller than its own: multiple comparisons with the
best (Hsu 1984), with the paired differences of a bootstrap over the images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from patchserve_client.evaluation.outcome import Outcome
from patchserve_client.evaluation.resampling import aurocs, balanced_accuracies, draw

LEVEL = 0.95
_SAME_TIME = 1.1  # times that differ by less are equal: they change from run to run


@dataclass(frozen=True, slots=True)
class Choice:
    """The result, as indices of the outcomes."""

    best: int  # of those as good, the highest image AUROC
    as_good: tuple[int, ...]  # not significantly worse than the best
    chosen: int  # the cheapest of these


def choose(outcomes: Sequence[Outcome]) -> Choice | None:
    """Compare settings on the images that all of them inspected. None: one kind of images is missing.

    The image AUROC decides first. Of the settings whose AUROC is as good as the best, those count whose balanced
    accuracy is as good, too: a wrong threshold makes wrong verdicts, however good the ranking is.
    """
    if not outcomes:
        return None
    names = set.intersection(*({one.image.name for one in outcome.findings.verdicts} for outcome in outcomes))
    labels, ratios = _common(outcomes, names)
    if labels.all() or not labels.any():
        return None
    draws, every = draw(labels), np.ones((1, labels.size), np.int16)
    auroc, accuracy = (
        np.array([metric(labels, row, every)[0] for row in ratios]) for metric in (aurocs, balanced_accuracies)
    )
    drawn = np.array([aurocs(labels, row, draws) for row in ratios])  # (K, B)
    ranking = np.flatnonzero(not_worse_than_the_best(auroc, drawn))
    drawn = np.array([balanced_accuracies(labels, ratios[k], draws) for k in ranking])
    as_good = [int(k) for k in ranking[not_worse_than_the_best(accuracy[ranking], drawn)]]
    best = max(as_good, key=lambda k: (auroc[k], accuracy[k], -outcomes[k].image_ms))
    return Choice(best, tuple(as_good), cheapest(outcomes, as_good))


def not_worse_than_the_best(values: NDArray[np.float64], drawn: NDArray[np.float64]) -> NDArray[np.bool_]:
    """For each of K settings: whether chance explains that it is behind every other one.

    Args:
        values: (K,) a metric on all images, higher is better.
        drawn: (K, B) the same on B resamples.
    """
    errors = drawn - values[:, None]  # (K, B)
    return np.array([_is_close(values - values[k], errors - errors[k]) for k in range(values.size)])


def _is_close(gaps: NDArray[np.float64], errors: NDArray[np.float64]) -> bool:
    """Whether no gap (K,) to another setting is beyond what its errors (K, B) reach."""
    spread = errors.std(axis=1)
    varies = spread > 0
    if (gaps[~varies] > 0).any():  # the same in every resample: no chance is in it
        return False
    if not varies.any():
        return True
    reach = np.quantile((errors[varies] / spread[varies, None]).max(axis=0), LEVEL)
    return bool((gaps[varies] / spread[varies] <= max(reach, 0)).all())


def cheapest(outcomes: Sequence[Outcome], candidates: Sequence[int]) -> int:
    """The fastest; of those that are as fast, the smallest; then the one with the highest image AUROC."""
    fastest_ms = min(outcomes[k].image_ms for k in candidates)
    fast = [k for k in candidates if outcomes[k].image_ms <= _SAME_TIME * fastest_ms]
    return min(fast, key=lambda k: (outcomes[k].bank_mib, -(outcomes[k].metrics.image_auroc or 0)))


def _common(outcomes: Sequence[Outcome], names: set[str]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """The labels (N,) and the ratios (K, N) of the images with these names, in one order."""
    first = sorted(
        (one for one in outcomes[0].findings.verdicts if one.image.name in names), key=lambda one: one.image.name
    )
    labels = np.array([one.image.defect is not None for one in first], np.bool_)
    ratios = []
    for outcome in outcomes:
        by_name = {one.image.name: one.anomaly.ratio for one in outcome.findings.verdicts}
        ratios.append([by_name[one.image.name] for one in first])
    return labels, np.array(ratios)
