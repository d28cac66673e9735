"""The threshold that would have judged the test images best, and the sensitivity that moves the threshold there."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchserve_client._choices import SENSITIVITY_RANGE

_MAX_DECIMALS = 9
_BEYOND = 1.2  # how far a threshold beyond all ratios may be from the outermost one


@dataclass(frozen=True, slots=True)
class BestThreshold:
    """The threshold with the highest balanced accuracy; of several, the one closest to the calibrated threshold."""

    sensitivity: float  # 1: the calibrated threshold is the best one
    balanced_accuracy: float
    false_alarm_rate: float
    found_rate: float

    @property
    def ratio(self) -> float:
        """The threshold as a multiple of the calibrated one."""
        return 1 / self.sensitivity


def best_threshold(defective: NDArray[np.bool_], ratios: NDArray[np.floating[Any]]) -> BestThreshold | None:
    """Find it. None: no threshold within the range of a sensitivity is better than a guess.

    Args:
        defective: (N,) the labels, some True and some False.
        ratios: (N,) raw score / threshold. An image is anomalous if its ratio is above the threshold.
    """
    best: tuple[float, float, BestThreshold] | None = None  # with its rank
    for sensitivity in _candidates(ratios):
        flagged = ratios > 1 / sensitivity
        found, alarms = float(flagged[defective].mean()), float(flagged[~defective].mean())
        candidate = BestThreshold(sensitivity, (found + 1 - alarms) / 2, alarms, found)
        rank = (candidate.balanced_accuracy, -abs(math.log(sensitivity)))
        if best is None or rank > best[:2]:
            best = (*rank, candidate)
    return best[2] if best is not None and best[2].balanced_accuracy > 0.5 else None  # noqa: PLR2004 - guessing


def _candidates(ratios: NDArray[np.floating[Any]]) -> Iterator[float]:
    """One sensitivity for each set of images that a threshold can flag."""
    levels = np.unique(ratios[np.isfinite(ratios)])
    if not levels.size:
        yield 1.0
        return
    ends = [levels[0] / _BEYOND, *levels.tolist(), levels[-1] * _BEYOND]
    for low, high in pairwise(dict.fromkeys(ends)):  # a threshold of at least `low` and below `high`
        is_first, is_last = low == ends[0], high == ends[-1]
        if (low <= 1 or is_first) and (high > 1 or is_last):
            yield 1.0
        else:
            lowest, highest = (1 / high, 1 / low) if low > 0 else (1 / high, math.inf)
            lowest, highest = max(lowest, SENSITIVITY_RANGE[0]), min(highest, SENSITIVITY_RANGE[1])
            if lowest < highest:
                yield _short(lowest, highest)


def _short(low: float, high: float) -> float:
    """A number between the two, near their middle and with few decimals."""
    middle = math.sqrt(low * high)
    for decimals in range(2, _MAX_DECIMALS):
        rounded = round(middle, decimals)
        if low < rounded < high:
            return rounded
    return middle
