"""95 % confidence intervals: between which values a metric may be for all images of this kind, not only for these.

Shares of images have the exact binomial interval (Clopper and Pearson 1934), and balanced accuracy one that is made
of two of those (Zou and Donner 2008): a bootstrap of "0 of 30" would say that it is always 0. The ranking metrics
have bootstrap percentiles, and an image AUROC of 1 or 0, of which every resample says the same, an exact bound.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from patchserve_client.evaluation.resampling import Labels, Ratios, aurocs, average_precisions, draw

LEVEL = 0.95
_TAIL = (1 - LEVEL) / 2

Interval: TypeAlias = tuple[float, float]
"""(low, high)"""


def share_interval(count: int, total: int) -> Interval:
    """That of `count` of `total` images, at least one."""
    found = binomtest(count, total).proportion_ci(LEVEL, method="exact")
    return float(found.low), float(found.high)


def intervals(defective: Labels, ratios: Ratios) -> dict[str, Interval | None]:
    """The intervals of metrics, by name. None: not defined, or nothing is known.

    Args:
        defective: (N,) the labels.
        ratios: (N,) raw score / threshold: an image above 1 is anomalous.
    """
    flagged = ratios > 1
    alarms = _share_of(flagged[~defective])
    found = _share_of(flagged[defective])
    if alarms is None or found is None:
        return {"false_alarm_rate": alarms, "found_rate": found}
    draws = draw(defective)
    return {
        "false_alarm_rate": alarms,
        "found_rate": found,
        "balanced_accuracy": _of_mean(
            (float(flagged[defective].mean()), found),
            (1 - float(flagged[~defective].mean()), (1 - alarms[1], 1 - alarms[0])),
        ),
        "image_auroc": auroc_interval(defective, aurocs(defective, ratios, draws)),
        "average_precision": _percentiles(average_precisions(defective, ratios, draws)),
    }


def auroc_interval(defective: Labels, resampled: NDArray[np.float64]) -> Interval:
    """That of an image AUROC with these values (B,) in the resamples."""
    percentiles = _percentiles(resampled)
    if percentiles is not None:
        return percentiles
    # All intact images rank below all defective ones, or above. min(intact, defective) pairs without a common image are
    # independent of each other, and all are in order: an exact binomial bound.
    pairs = min(int(defective.sum()), int((~defective).sum()))
    low, high = share_interval(round(float(resampled[0]) * pairs), pairs)
    return low, high


def _percentiles(resampled: NDArray[np.float64]) -> Interval | None:
    """None: all resamples agree, so they do not show how far chance reaches."""
    if np.ptp(resampled) == 0:
        return None
    low, high = np.quantile(resampled, [_TAIL, 1 - _TAIL])
    return float(low), float(high)


def _share_of(flags: NDArray[np.bool_]) -> Interval | None:
    return share_interval(int(flags.sum()), flags.size) if flags.size else None


def _of_mean(*shares: tuple[float, Interval]) -> Interval:
    """That of the mean of independent shares, each with its own interval: variances estimated from the intervals."""
    mean = sum(share for share, _ in shares) / len(shares)
    below = math.hypot(*(share - low for share, (low, _) in shares)) / len(shares)
    above = math.hypot(*(high - share for share, (_, high) in shares)) / len(shares)
    return mean - below, mean + above
