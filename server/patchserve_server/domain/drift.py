"""Drift: how the recent scores of a reference compare with the normal scores of its calibration."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime


class DriftState(enum.Enum):
    """What the comparison says."""

    TOO_FEW_IMAGES = "too_few_images"  # too few recent ones, or the calibration has too few normal scores
    NONE = "none"
    MORE_DAMAGE = "more_damage"  # more images far above the normal scores; the others are as before
    SCENE_CHANGED = "scene_changed"  # most images score otherwise than the reference's own: light, camera, product


@dataclass(frozen=True, slots=True)
class Drift:
    """The outcome of the last comparison for one revision.

    Raises:
        ValueError: a number is out of its range.
    """

    state: DriftState
    image_count: int = 0  # recent images that were compared
    # The probability that a recent score is above a normal one, ties counted half: 0.5 if nothing has changed.
    shift: float | None = None  # None: nothing was compared
    outlier_share: float | None = None  # of the recent images that are anomalous and score above all normal scores
    since: datetime | None = None  # when this state began, UTC; None: it is the first one

    def __post_init__(self) -> None:
        shares = [share for share in (self.shift, self.outlier_share) if share is not None]
        if self.image_count < 0 or not all(0 <= share <= 1 for share in shares):
            raise ValueError("a number of a drift is out of its range")


UNKNOWN = Drift(DriftState.TOO_FEW_IMAGES)
"""Before the first comparison."""
