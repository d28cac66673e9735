"""The rate of false alarms that the thresholds of a reference are computed for."""

from __future__ import annotations

from typing import Final

from patchserve_server.domain.errors import InvalidInputError

DEFAULT_FALSE_ALARM_RATE: Final = 0.15  # docs/adr/0016
FALSE_ALARM_RATE_RANGE: Final = (0.001, 0.5)


def check_false_alarm_rate(rate: float | None) -> None:
    """Check the rate that a caller asks for; None: the default.

    Raises:
        InvalidInputError: it is out of its range.
    """
    lowest, highest = FALSE_ALARM_RATE_RANGE
    if rate is not None and not lowest <= rate <= highest:  # also excludes NaN
        message = f"false_alarm_rate is a share of the undamaged items, {lowest:g} to {highest:g}, not {rate:g}."
        raise InvalidInputError("false_alarm_rate", message)
