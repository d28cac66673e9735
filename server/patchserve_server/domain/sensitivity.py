"""The sensitivity: the number that both thresholds of a calibration are divided by."""

from __future__ import annotations

from typing import Final

from patchserve_server.domain.errors import InvalidInputError

SENSITIVITY_RANGE: Final = (0.1, 10.0)
DEFAULT_SENSITIVITY: Final = 1.0  # the calibrated thresholds


def check_sensitivity(sensitivity: float) -> None:
    """Check the range.

    Raises:
        InvalidInputError: it is not 0.1 to 10.
    """
    low, high = SENSITIVITY_RANGE
    if not low <= sensitivity <= high:  # also excludes NaN
        raise InvalidInputError("sensitivity", f"sensitivity must be {low:g} to {high:g}, not {sensitivity:g}.")
