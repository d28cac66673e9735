"""Compares recent scores with normal scores (docs/adr/0021).

SciPy is imported at the first comparison, because that takes a second. Both tests know only ranks, so they hold for any
distribution of scores, and for few normal scores as well as for many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from patchserve_server.domain.drift import DriftState
from patchserve_server.domain.reference import Calibration, CalibrationMethod

WINDOW: Final = 256  # recent images that are kept
MIN_RECENT: Final = 32
SCENE_WINDOWS: Final = (16, 32, WINDOW)  # few images tell of a large change soon, many of a small one
DAMAGE_WINDOWS: Final = (32, WINDOW)
MIN_NORMAL_SCORES: Final = 3  # with fewer, no change of any size is significant
SCENE_LEVEL: Final = 0.001  # the probability of each error, of one comparison
DAMAGE_LEVEL: Final = 0.01
_EXACT_UP_TO: Final = 8  # of more scores, the normal approximation is as good

Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What one comparison says."""

    state: DriftState
    shift: float  # the probability that a recent score is above a normal one
    outlier_share: float  # of the recent scores


def is_comparable(calibration: Calibration) -> bool:
    """Whether the normal scores are those of different items, and enough of them."""
    is_of_items = calibration.method is CalibrationMethod.LEAVE_ONE_OUT
    return is_of_items and len(calibration.normal_scores.scores) >= MIN_NORMAL_SCORES


def compare(recent: Sequence[float], calibration: Calibration) -> Comparison:
    """Compares the latest scores, in their order, with the normal scores. Blocks for some milliseconds.

    Args:
        recent: raw scores, the oldest first, at least MIN_RECENT.
        calibration: of the reference, one that is comparable.
    """
    normal = np.array(calibration.normal_scores.scores)
    scores = np.array(recent[-WINDOW:])
    limit = max(float(normal[-1]), calibration.image_threshold)
    if any(scene_probability(scores[-size:], normal) < SCENE_LEVEL for size in SCENE_WINDOWS):
        state = DriftState.SCENE_CHANGED
    elif any(damage_probability(scores[-size:], normal, limit) < DAMAGE_LEVEL for size in DAMAGE_WINDOWS):
        state = DriftState.MORE_DAMAGE
    else:
        state = DriftState.NONE
    return Comparison(state, _shift(scores, normal), float(np.mean(scores > limit)))


def state_after(told: DriftState, before: DriftState, found: DriftState) -> DriftState:
    """What is told from now on. More damage must be found twice in a row: another scene begins by looking like it.

    Args:
        told: what was told until now.
        before: what the comparison before has found.
        found: what the last one has found.
    """
    return found if found in (before, told) or found is not DriftState.MORE_DAMAGE else told


def scene_probability(recent: Scores, normal: Scores) -> float:
    """How probable such scores are if at least half of the images are like the reference's own, whatever the others.

    The Mann-Whitney test of the lower half of the recent scores, which damage can only move up to where all scores were
    before, against being above the normal scores; and of the upper half against being below them.
    """
    half = len(recent) // 2
    ordered = np.sort(recent)
    above = _mann_whitney(ordered[:half], normal, "greater")
    below = _mann_whitney(ordered[-half:], normal, "less")
    return min(1.0, 2 * min(above, below))


def damage_probability(recent: Scores, normal: Scores, limit: float) -> float:
    """How probable at least as many scores above `limit` are if all are like the normal scores, none of them above.

    Rosenbaum's test: of all scores together, the highest are all recent ones.
    """
    from scipy.stats import hypergeom  # noqa: PLC0415

    above = int(np.count_nonzero(recent > limit))
    return float(hypergeom.pmf(above, len(recent) + len(normal), len(recent), above))


def _mann_whitney(first: Scores, second: Scores, alternative: Literal["greater", "less"]) -> float:
    from scipy.stats import mannwhitneyu  # noqa: PLC0415

    method = "exact" if min(len(first), len(second)) <= _EXACT_UP_TO else "asymptotic"
    return float(mannwhitneyu(first, second, alternative=alternative, method=method).pvalue)


def _shift(recent: Scores, normal: Scores) -> float:
    below = np.searchsorted(normal, recent, side="left")
    not_above = np.searchsorted(normal, recent, side="right")
    return float(np.mean(below + not_above) / (2 * len(normal)))
